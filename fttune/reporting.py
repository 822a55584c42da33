"""A report, regenerated from the logged runs of one sweep or several, written, attached and printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fttune.analysis.report import Report, Wanted, analyse, summary, write_report
from fttune.config import Sweep
from fttune.plan import cells
from fttune.record import DistanceRecord, RunRecord
from fttune.secrets import masked
from fttune.sweep.driver import machine, open_tracker
from fttune.sweep.ground import Ground, survey
from fttune.terminal import print_json, print_lines, say
from fttune.tracking.runs import Tracker


def make_report(sweep: Sweep, *, out: Path | None, as_json: bool, others: Sequence[Sweep] = ()) -> None:
    """Regenerate the report from the logged runs of a sweep, and of others with it; attach it to the sweep's run."""
    parts = [(one, survey(one, machine(one)), open_tracker(one)) for one in (sweep, *others)]
    for one, ground, _ in parts:
        if not ground.whole:
            missing = ", ".join(ground.unprepared) or "the weights"
            say(f"not prepared on this machine: {missing}; taking every run logged for sweep {one.name}")
    report, folder = regenerate(parts, out)
    print_report(sweep, parts[0][2], report, folder, as_json=as_json, code=0)


def regenerate(
    parts: Sequence[tuple[Sweep, Ground, Tracker]], out: Path | None, read: Sequence[RunRecord] | None = None
) -> tuple[Report, Path]:
    """From the logged runs of one sweep or several, with its folder; named, cut and kept as the first says.

    `read`: the trials of the one sweep, where they were just read.
    """
    sweep, _, tracker = parts[0]
    folder = out or Path("runs") / sweep.name
    logged = [_logged(*part, read) for part in parts]
    records = {record.trial_id: record for records, _ in logged for record in records}
    report = analyse(
        _oldest_first(records, [tracker for _, _, tracker in parts]),
        list({record.id: record for _, distances in logged for record in distances}.values()),
        name=" with ".join(one.name for one, _, _ in parts),
        image_edges=sweep.analysis.image_bands,
        distance_edges=sweep.analysis.distance_bands,
        confidence=sweep.analysis.confidence,
        defaults=[one.train.hparams() for one, _, _ in parts],
        wanted=[one for _, ground, _ in parts for one in _wanted(ground)],
    )
    write_report(report, folder)
    tracker.log_report(sweep.name, folder)
    return report, folder


def _oldest_first(records: Mapping[str, RunRecord], trackers: Sequence[Tracker]) -> list[RunRecord]:
    """Of several sweeps too, where they share an experiment; different experiments follow each other."""
    if len(trackers) == 1:
        return list(records.values())
    experiments = {(tracker.uri, tracker.experiment): tracker for tracker in trackers}
    order = [record.trial_id for tracker in experiments.values() for record in tracker.records()]
    return [records[trial_id] for trial_id in dict.fromkeys(order) if trial_id in records]


def _logged(
    sweep: Sweep, ground: Ground, tracker: Tracker, read: Sequence[RunRecord] | None = None
) -> tuple[list[RunRecord], list[DistanceRecord]]:
    """This sweep's trials and measurements as it stands now, where they can be told on this machine."""
    records = tracker.records(sweep.name) if read is None else [*read]
    if read is None and ground.whole:
        ids = {trial.id for trial in ground.asked(records).trials}
        records = [record for record in records if record.trial_id in ids]
    places = {(record.data_digest, record.weights_digest, record.image_size, record.resize) for record in records}
    here = [d for d in tracker.distances() if (d.data_digest, d.weights_digest, d.image_size, d.resize) in places]
    if not ground.whole or ground.undecoded:
        return records, here
    # A measurement from another source, which another sweep of the experiment asked for, must not place a dataset.
    asked = {job.id for job in ground.distances()[0]}
    return records, [record for record in here if record.id in asked]


def print_report(sweep: Sweep, tracker: Tracker, report: Report, folder: Path, *, as_json: bool, code: int) -> None:
    """What a report comes to, for a person or as one document, and where it lies."""
    if as_json:
        table: dict[str, Any] = {"sweep": sweep.name, "exit_code": code, "report": str(folder)}
        table |= {"mlflow": masked(tracker.uri), "trials": tracker.page(sweep.name)}
        return print_json(table | {"table": report.document})
    place = (
        f"MLflow: uv run mlflow ui --backend-store-uri {masked(tracker.uri)}   (experiment {sweep.tracking.experiment})"
    )
    trials = f"trials: {tracker.page(sweep.name)}"
    return print_lines([*summary(report).split("\n"), f"report: {folder / 'report.html'}", place, trials])


def _wanted(ground: Ground) -> list[Wanted]:
    return [
        (cell.dataset, cell.images_per_class, cell.backbone, cell.label, seed)
        for cell in cells(ground.sweep, ground.facts)
        for seed in ground.sweep.grid.seeds
    ]

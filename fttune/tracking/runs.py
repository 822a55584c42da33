"""An MLflow experiment as records: one run per trial for life, one per sweep, one per distance measurement."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.errors import ConfigError, StoreError
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.secrets import masked
from fttune.tracking import claim, fields, notes
from fttune.tracking.claim import Claim
from fttune.tracking.client import connect, mlflow, search, tag_run
from fttune.tracking.fields import Row, SweepRun, TrialRun
from fttune.tracking.rivals import settle
from fttune.tracking.uri import asking, database_file, resolve_uri
from fttune.trial import digest

if TYPE_CHECKING:
    from fttune.tracking.client import MlflowClient, Run

_ARTIFACTS = "mlartifacts"
_PAGE = 1000  # runs of one search, which a server answers within seconds
_LOCAL_PAGE = 4000  # for each page the database looks at all runs; one more run in a page takes 0.1 MB
_POINTS = 300  # curve points of one batch; MLflow takes 1000 metrics
_NAME_LENGTH = 250  # characters of a run's name in MLflow's databases
_CURVE = "val_accuracy"
_PARENT = "mlflow.parentRunId"


class Tracker:
    """One MLflow experiment.

    Nothing is contacted before the first question, and reading creates neither database nor experiment. Every method
    may raise UnreachableError. Every write may be repeated: a second time changes nothing.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        self.uri = resolve_uri(uri)
        self.experiment = experiment

    def records(self, sweep: str | None = None) -> list[RunRecord]:
        """The finished trials, done and failed, one record each; of one sweep, or of every sweep."""
        found: dict[str, RunRecord] = {}
        for record in self._finished("trial", RunRecord, sweep):
            # Two sweeps that start a trial in the same instant may open two runs for it.
            if record.trial_id not in found or record.status == "done":
                found[record.trial_id] = record
        return list(found.values())

    def distances(self) -> list[DistanceRecord]:
        """The distance measurements, one record for each DistanceRecord.id."""
        return list({record.id: record for record in self._finished("distance", DistanceRecord)}.values())

    def running(self, sweep: str | None = None) -> list[str]:
        """The ids of trials that are marked as running; those of a killed sweep stay so until it runs again."""
        return [tags[fields.TRIAL_ID] for tags in self._tags("trial", sweep, ("running",))]

    def tracebacks(self) -> dict[str, str]:
        """Of the failed trials, each by its id."""
        return {
            tags[fields.TRIAL_ID]: tags.get(fields.TRACEBACK, "") for tags in self._tags("trial", None, ("failed",))
        }

    def claim(self, sweep: str) -> Claim | None:
        """Who runs a sweep, or was killed while running it (its claim is not fresh); None: its last driver ended."""
        run = next(self._runs("sweep", sweep), None)
        return claim.of_run(run.data) if run else None

    def take(self, sweep: SweepRun, own: Claim, over: Claim | None = None) -> bool:
        """Claim a sweep that is free or was left by `over`; False where another driver has it."""
        with asking(self.uri):
            return claim.take(self._client, sweep.run_id, own, over)

    def beat(self, sweep: SweepRun, own: Claim) -> bool:
        """Give a sign of life; False where another driver has taken the sweep."""
        with asking(self.uri):
            return claim.beat(self._client, sweep.run_id, own)

    def log_report(self, sweep: str, folder: Path) -> None:
        """Upload the files of a report to the sweep's run, under `report`."""
        if not folder.is_dir():
            raise StoreError(f"{folder}: a report is a folder, but there is none")
        with asking(self.uri):
            run = self._sweep_run(sweep)
            self._client.log_artifacts(run.info.run_id, str(folder), "report")
            notes.describe(self._client, self._experiment_id, run, sweep)

    def page(self, sweep: str) -> str:
        """The address of a sweep's trials in MLflow's pages."""
        with asking(self.uri):
            return notes.page(self.uri, self._experiment_id, sweep)

    def open_sweep(self, sweep: str) -> SweepRun:
        """The one parent run of a sweep, found or created, and running."""
        with asking(self.uri):
            run = self._sweep_run(sweep)
            self._client.update_run(run.info.run_id, status="RUNNING")
            notes.describe(self._client, self._experiment_id, run, sweep)
        return SweepRun(sweep=sweep, run_id=run.info.run_id)

    def note(self, sweep: SweepRun, tag: str, text: str) -> None:
        """Tell of a sweep what its trials do not."""
        with asking(self.uri):
            tag_run(self._client, sweep.run_id, tag, text)

    def noted(self, sweep: str | None = None) -> dict[str, str]:
        """What was told of a sweep, or of every sweep, by tag."""
        return {name: text for run in self._runs("sweep", sweep) for name, text in run.data.tags.items()}

    def close_sweep(self, sweep: SweepRun, at: int) -> None:
        with asking(self.uri):
            self._client.set_terminated(sweep.run_id, "FINISHED", end_time=at)

    def open_trial(self, sweep: SweepRun, trial_id: str, *, name: str, at: int) -> TrialRun:
        """The one run of a trial, found and made this sweep's too, or created; times are ms since 1970."""
        tags, asked = {fields.KIND: "trial", fields.TRIAL_ID: trial_id}, fields.sweep_tag(sweep.sweep)
        with asking(self.uri):
            run = self._open(
                f"tags.`{fields.TRIAL_ID}` = '{trial_id}'", lambda: self._create(sweep, name=name, at=at, tags=tags)
            )
            if asked not in run.data.tags:
                tag_run(self._client, run.info.run_id, asked, "true")
            steps: list[int] = []
            if _CURVE in run.data.metrics:
                steps = [metric.step for metric in self._client.get_metric_history(run.info.run_id, _CURVE)]
        return TrialRun(
            run_id=run.info.run_id, step=max(steps, default=-1), done=run.data.tags.get(fields.STATUS) == "done"
        )

    def start_trial(self, run: TrialRun, *, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Mark a run as running, again if it failed or was stopped; what is done stays done."""
        if run.done:
            return
        with asking(self.uri):
            self._client.update_run(run.run_id, status="RUNNING")
            self._log(run.run_id, params=params, tags={**tags, fields.STATUS: "running"})

    def add_points(self, run: TrialRun, points: Sequence[tuple[int, CurvePoint]]) -> TrialRun:
        """Add (time, point) pairs to the learning curve; steps it already has are left out."""
        step, batch = run.step, []
        for at, point in points:
            if point.step > step and not run.done:
                step = point.step
                batch += [self._metric(name, v, at, step) for name, v in fields.curve_metrics(point).items()]
        width = 3 * _POINTS
        with asking(self.uri):
            for start in range(0, len(batch), width):
                self._client.log_batch(run.run_id, metrics=batch[start : start + width])
        return replace(run, step=step)

    def finish_trial(self, run: TrialRun, record: RunRecord, traceback: str, at: int) -> TrialRun:
        """Write a trial's record and end its run; a done trial is left as it is. The status comes last."""
        if run.done:
            return run
        texts = {fields.ERROR: fields.printable(record.error.partition("\n")[0])}
        if traceback:
            texts[fields.TRACEBACK] = fields.printable(traceback)
        with asking(self.uri):
            self._write_record(run.run_id, record, at, texts)
            self._client.set_terminated(run.run_id, "FINISHED" if record.status == "done" else "FAILED", end_time=at)
            tag_run(self._client, run.run_id, fields.STATUS, record.status)
        return replace(run, done=record.status == "done")

    def stop_trial(self, run: TrialRun, at: int) -> None:
        """Mark a trial that was interrupted; the next run of its sweep reopens it."""
        if not run.done:
            with asking(self.uri):
                self._client.set_terminated(run.run_id, "KILLED", end_time=at)
                tag_run(self._client, run.run_id, fields.STATUS, "stopped")

    def adopt(self, sweep: SweepRun, trial_ids: Sequence[str], between: Callable[[], object] = lambda: None) -> None:
        """Tag the runs of trials that another sweep has finished as asked for by this one too.

        `between` is called between any two of them, which may be a hundred thousand.
        """
        wanted, tag = set(trial_ids), fields.sweep_tag(sweep.sweep)
        with asking(self.uri):
            for run in self._search(f"tags.`{fields.KIND}` = 'trial'"):
                between()
                if run.data.tags.get(fields.TRIAL_ID) in wanted and tag not in run.data.tags:
                    tag_run(self._client, run.info.run_id, tag, "true")

    def write_distance(self, sweep: SweepRun, record: DistanceRecord, at: int) -> None:
        """Write a measurement into its one run; measuring again replaces the values."""
        name = f"{record.metric} {record.dataset} {record.backbone}"
        key = digest(record.id)[:16]
        with asking(self.uri):
            tags, is_it = {fields.KIND: "distance", fields.DISTANCE_ID: key}, f"tags.`{fields.DISTANCE_ID}` = '{key}'"
            run = self._open(is_it, lambda: self._create(sweep, name=name, at=at, tags=tags))
            if run.data.tags.get(fields.STATUS) == "done" and fields.unpack(DistanceRecord, run.data.tags) == record:
                return
            self._write_record(run.info.run_id, record, at, {fields.sweep_tag(sweep.sweep): "true"})
            self._client.set_terminated(run.info.run_id, "FINISHED", end_time=at)
            tag_run(self._client, run.info.run_id, fields.STATUS, "done")

    def _finished(self, kind: str, row: type[Row], sweep: str | None = None) -> Iterator[Row]:
        return (fields.unpack(row, tags) for tags in self._tags(kind, sweep, ("done", "failed")))

    def _tags(self, kind: str, sweep: str | None, states: Sequence[str]) -> Iterator[Mapping[str, str]]:
        """The tags of the runs of one kind that are in one of `states`."""
        asked = f" and tags.`{fields.STATUS}` = '{states[0]}'" if len(states) == 1 else ""
        return (run.data.tags for run in self._runs(kind, sweep, asked) if run.data.tags.get(fields.STATUS) in states)

    def _runs(self, kind: str, sweep: str | None, condition: str = "") -> Iterator["Run"]:
        """The runs of one kind that meet a condition; no database is made to look into."""
        file = database_file(self.uri)
        if file and not file.exists():
            return
        asked = f" and tags.`{fields.sweep_tag(sweep)}` = 'true'" if sweep else ""
        with asking(self.uri):
            yield from self._search(f"tags.`{fields.KIND}` = '{kind}'{asked}{condition}")

    def _search(self, condition: str, page: int | None = None) -> Iterator["Run"]:
        """The runs that meet a condition, oldest first, asked for in pages of `page`."""
        page = page or (_LOCAL_PAGE if database_file(self.uri) else _PAGE)
        return search(self._client, self.experiment, condition, page)

    def _open(self, condition: str, create: Callable[[], "Run"]) -> "Run":
        """The oldest run that meets a condition, or else a new one."""
        found = next(self._search(condition, page=1), None)
        if found and fields.STATUS in found.data.tags:
            return found
        look, delete = lambda: list(self._search(condition)), self._client.delete_run
        return settle(found or create(), look, delete, own=found is None)

    def _sweep_run(self, sweep: str) -> "Run":
        tag = fields.sweep_tag(sweep)
        tags = {fields.KIND: "sweep", tag: "true"}
        run = self._open(
            f"tags.`{fields.KIND}` = 'sweep' and tags.`{tag}` = 'true'",
            lambda: self._client.create_run(self._experiment_id, tags=tags, run_name=sweep),
        )
        if fields.STATUS not in run.data.tags:
            self._client.set_terminated(run.info.run_id, "FINISHED")
            tag_run(self._client, run.info.run_id, fields.STATUS, "done")
        return run

    def _create(self, sweep: SweepRun, *, name: str, at: int, tags: dict[str, str]) -> "Run":
        note = notes.run_note(self._experiment_id, sweep.run_id, sweep.sweep)
        tags = {**tags, _PARENT: sweep.run_id, fields.sweep_tag(sweep.sweep): "true", notes.NOTE: note}
        name = fields.printable(name, _NAME_LENGTH)
        return self._client.create_run(self._experiment_id, start_time=at, tags=tags, run_name=name)

    def _write_record(self, run_id: str, record: RunRecord | DistanceRecord, at: int, tags: Mapping[str, str]) -> None:
        metrics = [self._metric(name, value, at, 0) for name, value in fields.record_metrics(record).items()]
        self._log(
            run_id, metrics=metrics, params=fields.record_params(record), tags={**fields.record_tags(record), **tags}
        )

    def _log(self, run_id: str, *, params: Mapping[str, str], tags: Mapping[str, str], metrics: Any = ()) -> None:
        entities = mlflow().entities
        self._client.log_batch(
            run_id,
            metrics=metrics,
            params=[entities.Param(name, value) for name, value in params.items()],
            tags=[entities.RunTag(name, value) for name, value in tags.items()],
        )

    def _metric(self, name: str, value: float, at: int, step: int) -> Any:
        return mlflow().entities.Metric(name, value, at, step)

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self.uri)

    @cached_property
    def _experiment_id(self) -> str:
        """The experiment, created where it does not exist; ConfigError when it was deleted."""
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            return self._create_experiment()
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"tracking.experiment '{self.experiment}' was deleted in {masked(self.uri)}: name another, "
                f"or bring it back with `mlflow experiments restore --experiment-id {found.experiment_id}`"
            )
        return found.experiment_id

    def _create_experiment(self) -> str:
        """A server knows where its artifacts go; beside a database file it is `mlartifacts`."""
        database = database_file(self.uri)
        place = database and database.absolute().with_name(_ARTIFACTS).as_uri()
        try:
            return self._client.create_experiment(self.experiment, artifact_location=place)
        except mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._experiment_id  # somebody else was a moment faster

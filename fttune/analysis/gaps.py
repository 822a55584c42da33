"""What a report lacks, leaves out, or holds though newer runs are of another origin: a part of a page, all counted."""

from collections.abc import Sequence
from typing import Protocol

from fttune.analysis.markup import Code, folded, listed, row, table
from fttune.analysis.origins import Origin
from fttune.analysis.ratios import DepthPairing, Pair, Pairing
from fttune.record import RunRecord


class Found(Protocol):
    """What of a report can be missing."""

    @property
    def records(self) -> Sequence[RunRecord]: ...

    @property
    def pairing(self) -> Pairing: ...

    @property
    def copying(self) -> Sequence[DepthPairing]: ...

    @property
    def missing(self) -> Sequence[str]: ...

    @property
    def unpaired(self) -> Sequence[str]: ...


def gaps(report: Found, known: Sequence[Origin]) -> str:
    """Every kind with its number, none left out, so that a zero is seen to have been looked for."""
    failed = [f"{_name(record)}: {record.error}" for record in report.records if record.status == "failed"]
    every = [*report.pairing.pairs, *(pair for depths in report.copying for pair in depths.pairing.pairs)]
    flagged = [f"{_of(pair)}: {pair.flagged}" for pair in every if pair.flagged]
    unplaced = [_of(pair) for pair in report.pairing.pairs if pair.distance is None]
    kinds = {
        "Asked for, no finished run": report.missing,
        "Failed trials": failed,
        "Pairs left out of averages": flagged,
        "Results without a fair partner": report.unpaired,
        "Pairs without a distance, in no box": unplaced,
    }
    lists = [_counted(kind, lines) for kind, lines in kinds.items()]
    return "".join([*lists, _stale([one for one in known if one.stale])])


def provenance(known: Sequence[Origin]) -> str:
    """Each origin with the number of its runs."""
    rows = [row((one.kind, Code(one.value), len(one.trial_ids), "stale" if one.stale else None)) for one in known]
    return table(("what", "value", "runs", ""), rows, name="Provenance") if rows else ""


def _counted(kind: str, lines: Sequence[str]) -> str:
    return folded(f"{kind}: {len(lines)}", listed(lines)) if lines else _nil(kind)


def _nil(kind: str) -> str:
    return f'<p class="nil">{kind}: 0</p>'


def _stale(old: Sequence[Origin]) -> str:
    if not old:
        return _nil("Stale runs")
    rows = [
        row((one.kind, Code(one.value), Code(one.newest), len(one.trial_ids), Code(" ".join(one.trial_ids))))
        for one in old
    ]
    columns = ("what", "theirs", "of the newest run", "runs", "run ids")
    runs = {trial_id for one in old for trial_id in one.trial_ids}
    return folded(
        f"Stale runs, of another origin than the newest: {len(runs)}", table(columns, rows, name="Stale runs")
    )


def _name(record: RunRecord) -> str:
    cell = f"{record.dataset}/{record.images_per_class} {record.backbone} {record.label} s{record.seed}"
    return f"{cell}, run {record.trial_id}"


def _of(pair: Pair) -> str:
    return f"{pair.dataset}/{pair.images_per_class} {pair.backbone} {pair.label} s{pair.seed}"

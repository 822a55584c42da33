"""What a sweep asks for: a grid as a whole; a search in waves, each from what the earlier ones came to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Protocol

from fttune.config import Sweep
from fttune.errors import ConfigError
from fttune.plan import Facts, cells, expand, trial_of
from fttune.preferred import preferred
from fttune.record import RunRecord
from fttune.sweep.search import draw_settings, draw_values
from fttune.sweep.study import Items, Studies, Study, Values, items
from fttune.trial import SEARCHED, Cell, HParams, Trial
from fttune.ways import is_convex

Ended = Mapping[str, RunRecord]  # by trial id
Bar = tuple[tuple[int, float], ...]  # (step, val accuracy)
Draw = tuple[int, tuple[int, int] | None]  # seed and fold


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The trials that are asked for by now."""

    trials: tuple[Trial, ...]
    unknown: int = 0  # at most so many more, once some of these have ended


class Source(Protocol):
    """Where the settings of a cell come from."""

    def wave(self, told: Sequence[float | None]) -> Sequence[HParams]:
        """The next settings, when those before came to `told` (val accuracy; None: failed); none at the end."""
        ...


class Agenda:
    """A sweep's trials as far as results are known; results are only ever added."""

    def __init__(self, sweep: Sweep, facts: Facts, studies: Studies | None = None) -> None:
        """`studies` are needed by `sampler: tpe`."""
        self._search = sweep.search.sampler != "fixed"
        self.notes = tuple(studies.notes) if studies else ()  # a line for each thing the user should be told
        self._known = [] if self._search else expand(sweep, facts, draw_settings(sweep))
        every = cells(sweep, facts) if self._search else []
        # What is solved for takes none of the settings, so there is nothing to search.
        self._solved = [
            trial_of(cell, sweep.train.hparams(), seed, facts)
            for cell in every
            if is_convex(cell.way)
            for seed in sweep.grid.seeds
        ]
        searched = [cell for cell in every if not is_convex(cell.way)]
        lists = {tuned: _List(sweep, tuned=tuned) for tuned in {_tuned(cell) for cell in searched}}
        self._cells = [
            CellSearch(sweep, facts, cell, _source(sweep, facts, cell, lists[_tuned(cell)], studies))
            for cell in searched
        ]
        self._asked_by: dict[str, CellSearch] = {}

    def asked(self, ended: Ended) -> Asked:
        """Everything that is asked for, in the order of the file."""
        if not self._search:
            return Asked(trials=tuple(self._known))
        for one in self._cells:
            self._follow(one, ended)
        trials = (*self._solved, *(trial for one in self._cells for trial in one.trials))
        return Asked(trials=trials, unknown=sum(one.unknown for one in self._cells))

    def after(self, record: RunRecord, ended: Ended) -> Asked:
        """What is asked for because of one more result, which `ended` holds too; `unknown` of the whole sweep."""
        one = self._asked_by.get(record.trial_id)
        new = self._follow(one, ended) if one else ()
        return Asked(trials=tuple(new), unknown=sum(one.unknown for one in self._cells))

    def _follow(self, one: "CellSearch", ended: Ended) -> Sequence[Trial]:
        new = one.advance(ended)
        self._asked_by |= dict.fromkeys((trial.id for trial in new), one)
        return new


class CellSearch:
    """The search of one cell: waves of settings, each tried on every draw, then the repeats of the one that is best."""

    def __init__(self, sweep: Sweep, facts: Facts, cell: Cell, source: Source) -> None:
        self.trials: list[Trial] = []
        self._search, self._seeds = sweep.search, sweep.grid.seeds
        self._default = sweep.train.hparams()
        self._facts, self._cell, self._source = facts, cell, source
        self._tried: list[tuple[HParams, list[Trial]]] = []
        self._wave: list[tuple[HParams, list[Trial]]] = []  # what is tried now
        self._told: list[float | None] = []
        self._seen: dict[Draw, dict[int, list[float]]] = {}  # val accuracies of earlier waves, by step
        self._repeats = False

    @property
    def unknown(self) -> int:
        """Trials at most that are still to be asked for."""
        if self._repeats:
            return 0
        left = self._search.settings - len(self._tried) - len(self._wave)
        return left * self._search.trials_each + len(self._seeds) * min(2, self._search.settings)

    def advance(self, ended: Ended) -> list[Trial]:
        """What is newly asked for, now that these have ended."""
        before = len(self.trials)
        while not self._repeats and all(trial.id in ended for _, trials in self._wave for trial in trials):
            self._told += [value_of(trials, ended) for _, trials in self._wave]
            self._tried += self._wave
            bars = self._bars(ended)
            self._wave = [(setting, self._trials(setting, bars)) for setting in self._source.wave(self._told)]
            self.trials += [trial for _, trials in self._wave for trial in trials]
            if not self._wave:
                self._repeats = True
                self.trials += self._repeated(ended)
        return self.trials[before:]

    def _trials(self, setting: HParams, bars: Mapping[Draw, Bar]) -> list[Trial]:
        return [
            trial_of(self._cell, setting, seed, self._facts, fold=fold, bar=bars.get((seed, fold), ()))
            for seed, fold in self._draws()
        ]

    def _draws(self) -> Iterator[Draw]:
        folds = self._search.folds
        for draw in range(self._search.draws):
            if self._search.select == "val":
                yield -1 - draw, None
            else:
                yield from ((-1 - draw, (k, folds)) for k in range(1, folds + 1))

    def _bars(self, ended: Ended) -> dict[Draw, Bar]:
        """Of each draw the median of the val accuracies at each step, over the trials of earlier waves."""
        if self._search.pruner == "none":
            return {}
        for trial in (trial for _, trials in self._wave for trial in trials):
            points = self._seen.setdefault((trial.seed, trial.fold), {})
            for step, accuracy in curve(ended[trial.id]):
                points.setdefault(step, []).append(accuracy)
        # To end a training at its last step saves nothing.
        return {
            draw: tuple((step, median(points[step])) for step in sorted(points)[:-1])
            for draw, points in self._seen.items()
        }

    def _repeated(self, ended: Ended) -> list[Trial]:
        best = preferred({setting: _values(trials, ended) for setting, trials in self._tried}, rank)
        settings = dict.fromkeys(setting for setting in (best, self._default) if setting)
        return [trial_of(self._cell, setting, seed, self._facts) for setting in settings for seed in self._seeds]


def value_of(trials: Sequence[Trial], ended: Ended) -> float | None:
    """Mean val accuracy of one setting's trials; None where one has failed, since the others may be the easy draws."""
    known = _values(trials, ended)
    return fmean(known) if len(known) == len(trials) else None


def _values(trials: Sequence[Trial], ended: Ended) -> list[float]:
    """The val accuracies of those that are done."""
    values = [ended[trial.id].val_accuracy for trial in trials if ended[trial.id].status == "done"]
    return [value for value in values if value is not None]


def curve(record: RunRecord) -> list[tuple[int, float]]:
    """Steps with the val accuracy at them."""
    values = [float(text) for text in record.val_curve.split(",") if text]
    return [(min((n + 1) * record.report_every, record.steps), value) for n, value in enumerate(values)]


def rank(setting: HParams) -> tuple[object, ...]:
    """The order in which settings of equal worth are preferred."""
    return tuple(getattr(setting, name) for name in SEARCHED)


class _List:
    """The settings of `search`, drawn once for all cells of a kind."""

    def __init__(self, sweep: Sweep, *, tuned: bool) -> None:
        self.values = draw_values(sweep, tuned=tuned)
        self.settings = [sweep.train.hparams(**values) for values in self.values]
        search = sweep.search
        # Without a pruner nothing is learnt from earlier settings, so all are asked for at once.
        self._wave = search.wave if search.pruner != "none" else len(self.settings)

    def wave(self, told: Sequence[float | None]) -> Sequence[HParams]:
        return self.settings[len(told) : len(told) + self._wave]


class _Suggested:
    """The first wave of the list, then settings that a study suggests."""

    def __init__(self, sweep: Sweep, first: _List, study: Study, *, tuned: bool) -> None:
        self._sweep, self._study = sweep, study
        names = sweep.search.space.of(tuned=tuned)
        own = {name: getattr(sweep.train, name) for name in names}
        self._first: list[Values] = [own | values for values in first.values[: sweep.search.wave]]
        self._asked: list[Values] = []
        self._taken: set[Items] = set()

    def wave(self, told: Sequence[float | None]) -> Sequence[HParams]:
        start, search = len(told), self._sweep.search
        for index in range(max(0, start - search.wave), start):
            self._study.tell(index, told[index])
        for index in range(start, min(start + search.wave, search.settings)):
            wish = self._first[index] if index < len(self._first) else None
            self._asked.append(self._study.setting(index, wish, self._taken))
            self._taken.add(items(self._asked[-1]))
        return [self._sweep.train.hparams(**values) for values in self._asked[start:]]


def _source(sweep: Sweep, facts: Facts, cell: Cell, first: _List, studies: Studies | None) -> Source:
    if sweep.search.sampler != "tpe":
        return first
    assert studies is not None  # the caller's to bring
    search, data = sweep.search, facts.datasets[cell.dataset]
    terms = {
        **{name: getattr(search, name) for name in ("wave", "draws", "select", "pruner")},
        **({"folds": search.folds} if search.select == "cv" else {}),
        "train": _train(sweep),
        "data": [data.digest, data.val, data.test],
        "weights": facts.backbones[cell.backbone].weights_digest,
    }
    name = f"{cell.dataset}/{cell.images_per_class} {cell.backbone} {cell.label}"
    study = studies.of(name, terms, search.space.of(tuned=_tuned(cell)))
    return _Suggested(sweep, first, study, tuned=_tuned(cell))


def _train(sweep: Sweep) -> dict[str, object]:
    """What of `train` a search depends on, however it is written; where steps are searched, what follows from them."""
    follow = ("lr_drop_steps", "lr_drops", "report_every") if "steps" in sweep.search.space.domains else ()
    return asdict(sweep.train.hparams()) | {name: getattr(sweep.train, name) for name in follow}


def _tuned(cell: Cell) -> bool:
    return cell.spec.tuned > 0


def check(sweep: Sweep, facts: Facts) -> None:
    """ConfigError where a cell stands twice, or cannot be searched as it is asked for."""
    kinds = {_tuned(cell) for cell in cells(sweep, facts) if not is_convex(cell.way)}
    if fault := next(filter(None, (sweep.search.check_cell(tuned=tuned) for tuned in sorted(kinds))), ""):
        raise ConfigError(f"search.settings: {fault}")
    if sweep.search.sampler == "fixed" or sweep.search.select == "val":
        return
    for name, entry in sweep.grid.datasets.items():
        least, val = min(entry.images_per_class), facts.datasets[name].val
        if least + val < sweep.search.folds:
            raise ConfigError(
                f"search.folds: {sweep.search.folds} parts need as many images of each class, but {name} has"
                f" {least} to train on and {val} for val"
            )

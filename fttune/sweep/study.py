"""One Optuna study for each cell, kept in a file beside the tracker. With `search`, the only file that imports optuna.

The tracker is the truth: a study is told what the runs there came to, and one that is lost is asked for anew from them.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fttune.errors import ConfigError
from fttune.files import writing
from fttune.space import WHOLE, Choices, Domain, differences, holds, members, told
from fttune.trial import digest, seed_from

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.storages.journal import JournalFileOpenLock

_SETTING = "setting"  # user attribute of a study's trial: which setting of its cell it is; without one it is none
_TRIES = 20  # how often a setting that was asked for before is asked for again
Values = dict[str, Any]
Items = tuple[tuple[str, Any], ...]


class Studies:
    """The studies of one sweep. Without `keep` what is asked and told stays in memory, and no file is made."""

    def __init__(self, path: Path, sweep: str, *, keep: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path, self._sweep, self._keep = path, sweep, keep
        self.notes: list[str] = []  # a line for each thing the user should be told
        self._there = self._open() if keep or path.exists() else None
        self._memory = optuna.storages.InMemoryStorage()
        self._known = optuna.get_all_study_summaries(self._there, include_best_trial=False) if self._there else []

    def of(self, cell: str, terms: Mapping[str, Any], domains: Mapping[str, Domain]) -> "Study":
        """The study of a cell, begun where there is none; ConfigError where the space of a study has changed."""
        import optuna

        space, key = told(domains), digest(dict(terms))[:8]
        name = f"{self._sweep}: {cell} [{key} {digest(space)[:8]}]"
        mine = {s.study_name: s for s in self._known if s.user_attrs.get("terms") == [self._sweep, cell, key]}
        if name not in mine and mine:
            self._refuse(cell, next(iter(mine.values())).user_attrs["space"], space)
        storage = self._there if self._keep else self._memory
        if name in mine and self._there and not self._keep:
            optuna.copy_study(from_study_name=name, from_storage=self._there, to_storage=self._memory)
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        if name not in mine:
            study.set_user_attr("space", space)
            study.set_user_attr("terms", [self._sweep, cell, key])
        return Study(study, domains, seed=seed_from("study", cell, key, space))

    def _refuse(self, cell: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        raise ConfigError(
            f"search.space changed under the running studies of {self._sweep} ({cell}: {differences(old, new)}); they"
            " are kept in"
            f" {self.path}: put the old space back to go on with them, or begin new ones under another name of the"
            " sweep (name=OTHER), which shares the trials that are the same"
        )

    def _open(self) -> "BaseStorage | None":
        """The file's storage; a damaged file is put aside, since the tracker has all that was in it."""
        # What is written after half a line would make one broken line of both.
        if not (self._keep and self._is_cut()):
            try:
                return self._journal()
            except (ValueError, KeyError, AssertionError):
                if not self._keep:
                    return None
        names = (f"{self.path.name}.damaged{f'-{number}' if number > 1 else ''}" for number in count(1))
        aside = next(place for name in names if not (place := self.path.with_name(name)).exists())
        self.path.replace(aside)
        self.notes.append(f"{self.path} was damaged: kept as {aside.name}, and made anew from the tracker")
        return self._journal()

    def _is_cut(self) -> bool:
        """Whether the file ends within a line, as where a driver was killed or the disk was full.

        Looked at while nobody writes: another sweep's driver may have written half of what it means to.
        """
        if not self.path.exists():
            return False
        lock = self._lock()
        with writing(self.path.parent):
            lock.acquire()
        try:
            return self.path.read_bytes()[-1:] not in (b"", b"\n")
        finally:
            lock.release()

    def _journal(self) -> "BaseStorage":
        # Against SQLite: a tenth of the time for each trial, and sixteen processes lose none (benchmarks/studies.py).
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        with writing(self.path.parent):
            return JournalStorage(JournalFileBackend(str(self.path), lock_obj=self._lock()))

    def _lock(self) -> "JournalFileOpenLock":
        from optuna.storages.journal import JournalFileOpenLock

        return JournalFileOpenLock(str(self.path))


class Study:
    """Settings of one cell, asked for one after another; each depends on its number and on what is told before it."""

    def __init__(self, study: "optuna.Study", domains: Mapping[str, Domain], *, seed: int) -> None:
        self._study, self._domains, self._seed = study, domains, seed
        self._space = {name: _distribution(name, domain) for name, domain in domains.items()}
        self._values: dict[int, Values] = {}  # of each setting
        self._open: dict[int, int] = {}  # the numbers in the study of settings that nothing was told of
        for trial in study.get_trials(deepcopy=False):
            if _SETTING in trial.user_attrs:
                self._take(trial.user_attrs[_SETTING], trial.number, trial.params, told=trial.state.is_finished())
            elif not trial.state.is_finished():  # its driver was killed before it said what it asked for
                self._drop(trial.number)

    def setting(self, index: int, wish: Values | None, taken: Collection[Items]) -> Values:
        """The values of setting `index`: as they were asked for before, else `wish`, else a new one by TPE.

        `taken` are other settings of the cell. Where TPE finds none beside them, the first that is left is taken.
        """
        if index in self._values:
            return self._values[index]
        if wish is not None:
            return self._add(index, wish)
        for tries in range(_TRIES):
            trial = self._ask(index, tries)
            if items(trial.params) not in taken:
                break
            self._drop(trial.number)
        else:
            return self._add(index, next(values for values in self._grid() if items(values) not in taken))
        trial.set_user_attr(_SETTING, index)
        self._take(index, trial.number, trial.params, told=False)
        return self._values[index]

    def tell(self, index: int, value: float | None) -> None:
        """What setting `index` came to, to be as high as possible; None: it failed. What was told is not told again."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if (number := self._open.pop(index, None)) is not None:
            with suppress(UpdateFinishedTrialError):  # another driver has told the same
                self._study.tell(number, value, state=TrialState.COMPLETE if value is not None else TrialState.FAIL)

    def _add(self, index: int, wish: Values) -> Values:
        """One that lies outside the space is run and compared like any other, but no study can hold it."""
        import optuna

        if wish.keys() == self._domains.keys() and all(holds(self._domains[n], v) for n, v in wish.items()):
            self._study.add_trial(
                optuna.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=wish,
                    distributions=self._space,
                    user_attrs={_SETTING: index},
                )
            )
            # Another driver may have added one meanwhile, even this very setting: the first of them is it.
            mine = (one for one in self._study.get_trials(deepcopy=False) if one.user_attrs.get(_SETTING) == index)
            self._take(index, next(mine).number, wish, told=False)
        return wish

    def _grid(self) -> Iterator[Values]:
        """Every setting of the space; only where there are few does TPE run out of new ones."""
        counted = [members(name, domain) for name, domain in self._domains.items()]
        for values in product(*(some or [] for some in counted)):
            yield dict(zip(self._domains, values, strict=True))

    def _ask(self, index: int, tries: int) -> "optuna.Trial":
        """Seeded by the number of the setting, so that a study that was cut off goes on as if it had not been."""
        from optuna.samplers import TPESampler

        # From the second wave on the model decides: with as few settings as cells are given, ten random ones are all.
        seed = seed_from(self._seed, index, tries) % 2**32
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
        return self._study.ask(self._space)

    def _take(self, index: int, number: int, params: Values, *, told: bool) -> None:
        self._values[index] = dict(params)
        if not told:
            self._open[index] = number

    def _drop(self, number: int) -> None:
        from optuna.trial import TrialState

        self._study.tell(number, state=TrialState.FAIL)


def items(values: Values) -> Items:
    """A setting as it can be looked for."""
    return tuple(sorted(values.items()))


def _distribution(name: str, domain: Domain) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choices):
        return CategoricalDistribution([round(v) if name in WHOLE else v for v in domain.choices])  # pyright: ignore
    if name in WHOLE:
        return IntDistribution(round(domain.low), round(domain.high), log=True)
    return FloatDistribution(domain.low, domain.high, log=True)

"""What an Optuna study costs in each storage as it grows, and whether processes that ask at once lose anything.

    uv run python benchmarks/studies.py --trials 1000 10000

A study of so many finished trials over two log-uniform settings is filled, opened anew (as a driver does that goes on
after it was killed) and asked and told twenty times more, as a search does: TPE, each question with a sampler of its
own. Prints milliseconds for each trial filled in, seconds to open, and median milliseconds to ask and to tell; then how
many of the trials that sixteen processes ask for and tell at once are in the study afterwards. A row that would take
over `--limit` seconds to fill is left out.
"""

import argparse
import random
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1e-1, log=True),
    "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
}
PROCESSES, EACH = 16, 10


def journal(folder: Path) -> BaseStorage:
    file = str(folder / "journal")
    return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))


def sqlite(folder: Path) -> BaseStorage:
    return RDBStorage(f"sqlite:///{folder}/sqlite")


STORAGES: dict[str, Callable[[Path], BaseStorage]] = {"journal": journal, "sqlite": sqlite}


def main() -> None:
    """A table, and a line for each storage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--storages", nargs="+", choices=list(STORAGES), default=list(STORAGES))
    parser.add_argument("--limit", type=float, default=120)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{'':9}{'trials':>7}{'fill ms':>9}{'open s':>8}{'ask ms':>8}{'tell ms':>9}")
    for name in asked.storages:
        pace = 0.0
        for count in sorted(asked.trials):
            if pace * count > asked.limit:
                print(f"{name:9}{count:7}  left out: over {pace * count:.0f} s to fill")
                continue
            with TemporaryDirectory() as folder:
                fill, opened, ask, tell = measure(name, Path(folder), count)
            pace = fill / 1000
            print(f"{name:9}{count:7}{fill:9.1f}{opened:8.2f}{ask:8.0f}{tell:9.1f}", flush=True)
    for name in asked.storages:
        with TemporaryDirectory() as folder:
            try:
                there = together(name, Path(folder))
            except optuna.exceptions.StorageInternalError as error:
                print(f"{name}: gave up on sixteen processes: {' '.join(str(error.__cause__ or error).split())[:80]}")
            else:
                print(f"{name}: {there} of {PROCESSES * EACH} asked for at once are there")


def measure(name: str, folder: Path, count: int) -> tuple[float, float, float, float]:
    """Milliseconds a trial, seconds, milliseconds, milliseconds."""
    draw = random.Random(0)
    study = optuna.create_study(storage=STORAGES[name](folder), study_name="a", direction="maximize")
    start = perf_counter()
    for _ in range(count):
        params = {"lr": 10 ** draw.uniform(-3, -1), "weight_decay": 10 ** draw.uniform(-6, -2)}
        study.add_trial(optuna.create_trial(params=params, distributions=SPACE, value=draw.random()))
    filled = perf_counter() - start
    start = perf_counter()
    study = optuna.load_study(storage=STORAGES[name](folder), study_name="a")
    assert len(study.get_trials(deepcopy=False)) == count
    opened = perf_counter() - start
    asks, tells = [], []
    for number in range(20):
        start = perf_counter()
        trial = ask(study, number)
        asks.append(perf_counter() - start)
        start = perf_counter()
        study.tell(trial, draw.random())
        tells.append(perf_counter() - start)
    return 1000 * filled / count, opened, 1000 * median(asks), 1000 * median(tells)


def together(name: str, folder: Path) -> int:
    """Finished trials of a study that many processes asked at once."""
    optuna.create_study(storage=STORAGES[name](folder), study_name="a", direction="maximize")
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        list(pool.map(one, [name] * PROCESSES, [folder] * PROCESSES, range(PROCESSES)))
    study = optuna.load_study(storage=STORAGES[name](folder), study_name="a")
    return len({trial.number for trial in study.trials if trial.state.is_finished() and trial.params})


def one(name: str, folder: Path, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(storage=STORAGES[name](folder), study_name="a")
    for number in range(EACH):
        study.tell(ask(study, EACH * seed + number), 0.5)


def ask(study: optuna.Study, seed: int) -> optuna.Trial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
    return study.ask(SPACE)


if __name__ == "__main__":
    main()

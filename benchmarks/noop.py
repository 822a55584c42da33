"""What a sweep costs when its trials do next to nothing: `fttune run` against bare Ray Tune.

    uv run python benchmarks/noop.py --trials 100 1000 10000

`tuned` and `frozen` are sweeps of as many seeds: one step on ten digits of 32 px, judged on ten and ten more, two
slots, logged into SQLite, each trial with its curve and its record; tuned trials run one by one, frozen ones are
trained up to 64 at a time. `bare` is as many trainables of Ray Tune that do nothing and log nothing, on processes that
are used again. Prints wall seconds of the whole command, milliseconds a trial, and the most memory that the driver's
process took. A row that would take over `--limit` seconds is left out.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

SWEEP = """
name: noop
grid:
  datasets: {{digits: {{images_per_class: [1], val: 1, test: 1}}}}
  backbones: [tiny]
  random_top: [1]
  modes: [{mode}]
  seeds: {seeds}
train: {{steps: 1, report_every: 1, batch_size: 10, image_size: 32, views: center}}
tracking: {{uri: "sqlite:///{uri}"}}
"""
MODES = {"tuned": "tune", "frozen": "freeze"}


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--kinds", nargs="+", default=["bare", "tuned", "frozen"])
    parser.add_argument("--limit", type=float, default=2400)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.bare:
        return bare(asked.bare)
    print(f"{'':8}{'trials':>7}{'seconds':>9}{'ms/trial':>10}{'MB':>7}")
    for kind in asked.kinds:
        pace = 0.0
        for count in sorted(asked.trials):
            if pace * count > asked.limit:
                print(f"{kind:8}{count:7}  left out: over {pace * count:.0f} s")
                break
            seconds, memory = measure(kind, count)
            pace = seconds / count
            print(f"{kind:8}{count:7}{seconds:9.1f}{1000 * pace:10.1f}{memory:7.0f}", flush=True)
    return None


def measure(kind: str, count: int) -> tuple[float, float]:
    """Wall seconds of a whole command, and the driver's most memory in MB."""
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        words = [__file__, "--bare", str(count)] if kind == "bare" else ours(MODES[kind], count, scratch)
        places = {f"FTTUNE_{name}": str(scratch / name.lower()) for name in ("STORE", "CACHE", "STATE")}
        with (scratch / "told").open("w") as told:
            start = perf_counter()
            process = subprocess.Popen(
                [sys.executable, *words], cwd=scratch, env={**os.environ, **places}, stdout=told, stderr=told
            )
            _, code, used = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        if code:
            raise SystemExit((scratch / "told").read_text()[-2000:])
    return seconds, used.ru_maxrss / 1024


def ours(mode: str, count: int, scratch: Path) -> list[str]:
    """A sweep, written, and the command that runs it."""
    sweep = scratch / "noop.yaml"
    sweep.write_text(SWEEP.format(mode=mode, seeds=list(range(count)), uri=scratch / "mlflow.db"))
    return ["-m", "fttune.cli", "run", str(sweep)]


def bare(count: int) -> None:
    """Tune alone."""
    import ray
    from ray import tune

    class Nothing(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    results = tune.Tuner(
        tune.with_resources(Nothing, {"cpu": 1}),
        param_space={"job": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(Path.cwd() / "tune"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    assert len(results) == count
    assert results.num_errors == 0


if __name__ == "__main__":
    main()

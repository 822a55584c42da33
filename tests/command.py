"""The command line as processes of their own, forked from one that has loaded it: whole commands, started in no time.

Ray is loaded anew by each, since it reads its settings then. What starts anew altogether, and so shows a command's own
loading and its end, is `small_sweeps.fttune_anew`, `small_sweeps.Driver` and the soak.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    ["fttune.cli", "fttune.session", "fttune.training.run", "mlflow", "optuna", "torchvision"]
)

_LONGEST = 240  # seconds


def run_command(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`fttune` with these words, as `subprocess.run` would give it."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKED.Process(target=_command, args=(words, dict(environment), Path.cwd(), out, err))
        process.start()
        try:
            process.join(_LONGEST)
            assert process.exitcode is not None, err.read_text()
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _command(words: Sequence[str], environment: Mapping[str, str], folder: Path, out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["fttune", *words]
    from fttune.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()

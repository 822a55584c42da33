"""The command line: every command by its name, and what becomes of an error."""

import atexit
import os
import signal
import sys

import typer

from fttune.commands import evidence, images, networks, sweeps
from fttune.commands.options import AsJson
from fttune.errors import FttuneError
from fttune.garbage import seldom_collected
from fttune.interrupt import INTERRUPTED, interrupts_heard, terminated_as_interrupted
from fttune.text import inert

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How many layers of a pre-trained network to copy, and whether to freeze or fine-tune them: with evidence.",
)


def main() -> None:
    """Entry point of the command `fttune`: errors on purpose become one line and an exit code."""
    seldom_collected()
    with terminated_as_interrupted(), interrupts_heard() as interrupts:
        try:
            app()
        except (Exception, SystemExit, KeyboardInterrupt) as end:
            if interrupts:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # one more has nothing left to end
            if interrupts and _follows(end):
                print("interrupted; what is finished is kept, and the same command goes on", file=sys.stderr)
                _leave(INTERRUPTED)
            if isinstance(end, SystemExit) and isinstance(end.code, int):
                _leave(end.code)
            if not isinstance(end, FttuneError):
                raise
            print(f"error: {inert(' '.join(str(end).split()))}", file=sys.stderr)
            _leave(end.exit_code)


def _leave(code: int) -> None:
    """End at once: the interpreter's own end takes a second or two to search for garbage in what it gives back."""
    if code != INTERRUPTED:  # a Ray that was half started may crash what is registered for the end
        atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # none is there where it was closed from the start
            stream.flush()
    except (OSError, ValueError):  # a full disk, a closed pipe: the interpreter tells of it, and changes the code
        sys.exit(code)
    os._exit(code)


def _follows(end: BaseException) -> bool:
    """Whether an interrupt may end so: Typer takes it for a failure, half an import lacks names or is cut short."""
    if isinstance(end, SystemExit):
        return end.code == 1
    cause = end.__cause__ if isinstance(end, FttuneError) else end
    return isinstance(cause, AttributeError | ImportError | KeyboardInterrupt)


def doctor(as_json: AsJson = False) -> None:
    """What this machine has: cores, GPUs, memory, room, versions, weights, the tracker."""
    from fttune.describe import checks
    from fttune.terminal import print_facts

    print_facts(checks(), as_json=as_json)


for command in (
    sweeps.run,
    sweeps.plan,
    sweeps.status,
    sweeps.report,
    evidence.runs,
    evidence.compare,
    evidence.recommend,
    networks.spec,
    images.datasets,
    networks.backbones,
    images.prepare,
    networks.pretrain,
    networks.export,
    networks.predict,
    images.distance,
    doctor,
):
    app.command()(command)

if __name__ == "__main__":
    main()

"""What `fttune recommend` does: place the images, ask the runs at hand, price the choices, and run them if told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fttune.analysis.advice import advise
from fttune.analysis.answer import Answer
from fttune.analysis.evidence import Body, shipped
from fttune.distance.sample import MAX_IMAGES
from fttune.files import place
from fttune.placing import BACKBONE, Placed, Question, place_target
from fttune.runtime import Runtime
from fttune.session import Call, run_sweep
from fttune.sweep.driver import Choice
from fttune.terminal import print_json, print_lines
from fttune.tracking.runs import Tracker
from fttune.trying import check_file, priced, sweep_name, sweep_of, write_sweep


def recommend(
    target: str | Path,
    *,
    backbone: str = BACKBONE,
    images_per_class: int | None = None,
    image_size: int | None = None,
    maximum: int = MAX_IMAGES,
    root: Path | None = None,
    options: Mapping[str, Any] | None = None,
    skip_corrupt: bool = False,
    experiment: str = "fttune",
    uri: str | None = None,
) -> Answer:
    """Freeze or tune, and how many layers to copy, for a dataset named as on the command line.

    `print(answer)` prints it, `answer.document` is the same as JSON-able values. Errors are those of the command line.
    """
    question = Question(
        target=str(target),
        backbone=backbone,
        images_per_class=images_per_class,
        image_size=image_size,
        maximum=maximum,
        root=root,
        options=options or {},
        skip_corrupt=skip_corrupt,
        experiment=experiment,
        uri=uri,
    )
    return _answered(question, _placed(question), None)


def show_recommendation(question: Question, *, write: Path | None, verify: bool, as_json: bool) -> int:
    """Print an answer, after the sweep that measures it where told; the exit code, that of the sweep.

    What is run is always written: to `write`, or to a file of the sweep's name in this folder.
    """
    if write:
        check_file(write)
    placed, code = _placed(question), 0
    if verify and not write:
        write = Path(f"{sweep_name(placed)}.yaml")
        check_file(write)
    answer = _answered(question, placed, write)
    if write:
        write_sweep(write, _tree(answer))
    if verify and write:
        code = run_sweep(
            sweep_of(_tree(answer), question), Choice(), Call(words=["fttune", "run", str(write)], quiet=True)
        )
        answer = _answered(question, placed, write)
    if as_json:
        print_json(answer.document | {"exit_code": code})
    else:
        print_lines(str(answer).splitlines())
    return code


def _tree(answer: Answer) -> dict[str, Any]:
    assert answer.trying
    return dict(answer.trying.sweep)


def _placed(question: Question) -> Placed:
    return place_target(question, Runtime(store=place("store"), cache=place("features"), state=place("state")))


def _answered(question: Question, placed: Placed, write: Path | None) -> Answer:
    tracker = Tracker(question.uri, question.experiment)
    mine = Body.of(f"your runs ({question.experiment})", tracker.records(), tracker.distances())
    bodies = [body for body in (shipped(), mine) if body]
    answer = advise(placed.images, placed.distance, bodies, depth=placed.depth)
    return priced(answer, question, placed, file=write, words=_words(question))


def _words(question: Question) -> list[str]:
    """The command to give again."""
    flags: dict[str, Any] = {
        "--backbone": question.backbone if question.backbone != BACKBONE else None,
        "--images-per-class": question.images_per_class,
        "--image-size": question.image_size,
        "--images": question.maximum if question.maximum != MAX_IMAGES else None,
        "--data-root": question.root,
        "--experiment": question.experiment if question.experiment != "fttune" else None,
    }
    words = [word for name, value in flags.items() if value is not None for word in (name, str(value))]
    options = [word for name, value in question.options.items() for word in ("--option", f"{name}={value}")]
    skip = ["--skip-corrupt"] if question.skip_corrupt else []
    return ["fttune", "recommend", question.target, *words, *options, *skip]

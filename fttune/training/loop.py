"""The training loop: steps of SGD with reports, and the weights of the best report kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fttune.record import CurvePoint
from fttune.training.inputs import Labelled
from fttune.training.steps import Training
from fttune.training.surgery import Student
from fttune.trial import HParams

Report = Callable[[CurvePoint], None]
EVAL_BATCH = 256  # images


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How well a network does on a set; accuracies are fractions."""

    accuracy: float  # top-1
    mean_class_accuracy: float  # mean over the classes present of each class's accuracy
    loss: float  # mean cross-entropy


@dataclass(kw_only=True, slots=True)
class Best:
    """The report with the highest val accuracy so far; ties go to the lower val loss, then to the earlier step."""

    step: int = 0
    scores: Scores | None = None
    state: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, step: int, scores: Scores, module: nn.Module) -> None:
        if self.scores is None or _rank(scores) > _rank(self.scores):
            self.step, self.scores = step, scores
            self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a training came to. The student holds the weights of the best step."""

    best_step: int
    val: Scores
    steps: int  # taken; fewer than asked only when the loss left the numbers
    train_seconds: float
    eval_seconds: float


def fit(student: Student, train: Labelled, val: Labelled, hparams: HParams, *, seed: int, report: Report) -> Fit:
    """Train for `hparams.steps` steps, report every `report_every`, and put back the weights of the best report.

    A loss that is no longer finite ends the training: what came before it still counts.
    """
    training = Training.begin(student, len(train.labels), hparams, seed=seed)
    best, clock = Best(), _Clock()
    while training.step < hparams.steps:
        training.advance(train, min(training.step + hparams.report_every, hparams.steps))
        loss, step = training.mean_loss(), training.step
        clock.lap("train")
        scores = score(student, val)
        best.offer(step, scores, student.trained)
        clock.lap("eval")
        report(CurvePoint(step=step, train_loss=loss, val_loss=scores.loss, val_accuracy=scores.accuracy))
        if not math.isfinite(loss):
            break
    student.trained.load_state_dict(best.state)
    assert best.scores is not None  # at least one report was made, since steps > 0
    return Fit(
        best_step=best.step,
        val=best.scores,
        steps=training.step,
        train_seconds=clock.laps["train"],
        eval_seconds=clock.laps["eval"],
    )


@torch.inference_mode()
def score(student: Student, data: Labelled) -> Scores:
    """Evaluate in eval mode on the centre view of each image."""
    student.eval()
    pieces = [slice(start, start + EVAL_BATCH) for start in range(0, len(data.labels), EVAL_BATCH)]
    logits = torch.cat([data.logits(data.inputs.show(piece)) for piece in pieces]).float()
    right = (logits.argmax(1) == data.labels).double()
    total = torch.bincount(data.labels, minlength=logits.shape[1])
    hits = torch.bincount(data.labels, weights=right, minlength=logits.shape[1])
    present = total > 0
    return Scores(
        accuracy=right.mean().item(),
        mean_class_accuracy=(hits[present] / total[present]).mean().item(),
        loss=cross_entropy(logits, data.labels).item(),
    )


def _rank(scores: Scores) -> tuple[float, float]:
    return scores.accuracy, -scores.loss if math.isfinite(scores.loss) else -math.inf


class _Clock:
    """Seconds spent under each name, measured between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {"train": 0.0, "eval": 0.0}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] += now - self._last
        self._last = now

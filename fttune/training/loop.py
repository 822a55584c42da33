"""The training loop: steps of SGD with reports, and the weights of the best report kept."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fttune.record import CurvePoint
from fttune.training.inputs import Inputs
from fttune.training.surgery import Student, parameter_groups
from fttune.trial import HParams

Report = Callable[[CurvePoint], None]
EVAL_BATCH = 256  # images


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Images (or features) with their classes int64 [N], on the same device."""

    inputs: Inputs
    labels: Tensor
    logits: Callable[[Tensor], Tensor]  # from what `inputs` gives to logits


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
    groups = parameter_groups(student, hparams)
    optimiser = torch.optim.SGD(groups, momentum=hparams.momentum, weight_decay=hparams.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(len(train.labels), min(hparams.batch_size, len(train.labels)), generator)
    best, step, clock = Best(), 0, _Clock()
    while step < hparams.steps:
        stop = min(step + hparams.report_every, hparams.steps)
        loss = _steps(student, train, optimiser, batches, hparams, range(step, stop), generator)
        step = stop
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
        steps=step,
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


def _steps(
    student: Student,
    data: Labelled,
    optimiser: torch.optim.Optimizer,
    batches: Iterator[Tensor],
    hparams: HParams,
    span: range,
    generator: torch.Generator,
) -> float:
    """Take the steps of `span` (counted from 0); the mean loss. Nothing waits for the device before the end."""
    student.train()
    total = torch.zeros((), device=data.labels.device)
    for step in span:
        if step in hparams.lr_drop_steps:
            for group in optimiser.param_groups:
                group["lr"] /= 10
        rows = next(batches)
        loss = cross_entropy(data.logits(data.inputs.draw(rows, generator)), data.labels[rows.to(data.labels.device)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.detach()
    return total.item() / len(span)


def _batches(images: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of exactly `size` rows, each image once before any comes again; a batch may span two rounds."""
    rows = torch.randperm(images, generator=generator)
    while True:
        while len(rows) < size:
            rows = torch.cat([rows, torch.randperm(images, generator=generator)])
        yield rows[:size]
        rows = rows[size:]


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

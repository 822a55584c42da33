"""Train many classifiers on frozen features at once; each as it would be trained alone, with a curve of its own.

They may differ in seed, rate, weight decay and momentum. Those of one seed share images, order and dropout.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fttune.record import CurvePoint
from fttune.training.device import sent
from fttune.training.heads import Heads
from fttune.training.inputs import Labelled
from fttune.training.loop import Best, Clock, Fit, Scores, scores
from fttune.training.steps import Batches
from fttune.training.surgery import Student
from fttune.trial import HParams

Report = Callable[[int, int, CurvePoint], None]  # which seed, which setting
EVALUATED = 256  # images at once, of which only features are read


def fits(student: Student) -> bool:
    """Whether all that is trained is one linear layer behind layers without values."""
    *before, last = student.leaves
    return isinstance(last, nn.Linear) and not any(True for layer in before for _ in layer.parameters())


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """What the classifiers of one seed share."""

    student: Student  # as it starts
    train: Labelled
    val: Labelled
    seed: int  # of order and dropout
    dropout: Tensor  # state of torch's generator on the CPU, which a training alone would draw its dropout from

    def before(self, shown: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the linear layer is given, [B, D]; with a generator dropout is on."""
        for layer in self.student.leaves[:-1]:
            if not isinstance(layer, _DropoutNd):
                shown = layer(shown)
            elif generator is not None and layer.p:
                kept = torch.empty_like(shown).bernoulli_(1 - layer.p, generator=generator)
                shown = shown * kept.div_(1 - layer.p)
        return shown

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Without end: features [B, D] and labels int64 [B] of each step."""
        order, device = torch.Generator().manual_seed(self.seed), self.train.labels.device
        dropout = torch.Generator(device)
        dropout = dropout.manual_seed(self.seed) if device.type == "cuda" else dropout.set_state(self.dropout)
        for rows in Batches(len(self.train.labels), min(size, len(self.train.labels)), order):
            yield self.before(self.train.inputs.draw(rows, order), dropout), self.train.labels[sent(rows, device)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """S x R trainings that came to their end; `heads` holds the weights of each one's best report."""

    seats: Sequence[Seat]
    heads: Heads
    ends: tuple[tuple[Fit, ...], ...]  # [S][R]; seconds are each one's share

    @torch.no_grad()
    def score(self, data: Sequence[Labelled]) -> list[list[Scores]]:
        """How well each does on the centre views of equally many images for each seed: [S][R]."""
        return _score(self.seats, self.heads, data)

    def state(self, seat: int, setting: int) -> dict[str, Tensor]:
        """The values that one of them trained, under the names that its student's trained part has for them."""
        student = self.seats[seat].student
        name = next(name for name, module in student.trained.named_modules() if module is _linear(student))
        own = {"weight": self.heads.weight[seat, setting], "bias": self.heads.bias[seat, setting]}
        return student.trained.state_dict() | {f"{name}.{kind}": value for kind, value in own.items()}


@torch.no_grad()
def fit_together(seats: Sequence[Seat], settings: Sequence[HParams], report: Report) -> Together:
    """Train every setting with every seed, as `fttune.training.loop.fit` would train each alone.

    `settings` are equal but for lr, weight_decay and momentum; `seats` hold equally many images.
    """
    hparams, heads = settings[0], Heads.begin([_linear(seat.student) for seat in seats], settings)
    members = [_Member(seat=s, setting=r) for s in range(len(seats)) for r in range(len(settings))]
    streams = [seat.batches(hparams.batch_size) for seat in seats]
    clock, drop = Clock(), 1.0
    for start in range(0, hparams.steps, hparams.report_every):
        stop = min(start + hparams.report_every, hparams.steps)
        total = torch.zeros_like(heads.bias[..., 0])
        for step in range(start, stop):
            drop /= 10 if step in hparams.lr_drop_steps else 1
            features, labels = (torch.stack(part) for part in zip(*map(next, streams), strict=True))
            total += heads.advance(features, labels, drop)
        losses = (total / (stop - start)).tolist()
        clock.lap("train")
        scored = _score(seats, heads, [seat.val for seat in seats])
        for member in members:
            member.take(stop, losses, scored, heads, report)
        clock.lap("eval")
        if not any(member.going for member in members):
            break
    return _ended(seats, heads, members, clock)


@dataclass(kw_only=True, slots=True)
class _Member:
    """What one of the classifiers has come to so far."""

    seat: int
    setting: int
    best: Best = field(default_factory=Best)
    steps: int = 0
    going: bool = True  # until its loss leaves the numbers
    curve: list[float] = field(default_factory=list)  # val accuracy at each report

    def take(
        self, step: int, losses: list[list[float]], scored: list[list[Scores]], heads: Heads, report: Report
    ) -> None:
        """Note and tell what a report came to."""
        if not self.going:
            return
        at = self.seat, self.setting
        loss, val = losses[at[0]][at[1]], scored[at[0]][at[1]]
        self.steps, self.going = step, math.isfinite(loss)
        self.best.offer(step, val, {"weight": heads.weight[at], "bias": heads.bias[at]})
        self.curve.append(val.accuracy)
        report(*at, CurvePoint(step=step, train_loss=loss, val_loss=val.loss, val_accuracy=val.accuracy))


def _ended(seats: Sequence[Seat], heads: Heads, members: Sequence[_Member], clock: Clock) -> Together:
    """Put the best weights back; each member's seconds are its share."""
    for member in members:
        heads.weight[member.seat, member.setting] = member.best.state["weight"]
        heads.bias[member.seat, member.setting] = member.best.state["bias"]
    share = 1 / len(members)
    ends = [replace(m.best.fit(m.steps, clock, share=share), curve=tuple(m.curve)) for m in members]
    settings = len(members) // len(seats)
    rows = tuple(tuple(ends[start : start + settings]) for start in range(0, len(ends), settings))
    return Together(seats=seats, heads=heads, ends=rows)


def _score(seats: Sequence[Seat], heads: Heads, data: Sequence[Labelled]) -> list[list[Scores]]:
    """Evaluate on the centre views of equally many images for each seed: [S][R]."""
    size, pairs = len(data[0].labels), list(zip(seats, data, strict=True))
    pieces = [slice(start, start + EVALUATED) for start in range(0, size, EVALUATED)]
    shown = (torch.stack([seat.before(labelled.inputs.show(piece)) for seat, labelled in pairs]) for piece in pieces)
    labels = torch.stack([labelled.labels for labelled in data])
    judged = [heads.judge(features, labels[:, piece]) for features, piece in zip(shown, pieces, strict=True)]
    guesses, losses = (torch.cat(part, dim=1) for part in zip(*judged, strict=True))
    settings = range(guesses.shape[2])
    return [[scores(guesses[s, :, r], losses[s, :, r], labels[s]) for r in settings] for s in range(len(data))]


def _linear(student: Student) -> nn.Linear:
    last = student.leaves[-1]
    assert isinstance(last, nn.Linear)  # the contract of a backbone's last stage, and `fits`
    return last

"""Steps of SGD that can be stopped after any of them and taken up again, bit for bit as if they never had been."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fttune.errors import UsageError
from fttune.training.device import mixed, sent
from fttune.training.inputs import Labelled
from fttune.training.optimiser import SGD
from fttune.training.surgery import Student, parameter_groups
from fttune.trial import HParams


class Batches:
    """Batches of exactly `size` rows, each image once before any comes again; a batch may span two rounds."""

    def __init__(self, images: int, size: int, generator: torch.Generator) -> None:
        self.rest = torch.empty(0, dtype=torch.int64)  # rows of this round that are still to come
        self._images, self._size, self._generator = images, size, generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        while len(self.rest) < self._size:
            self.rest = torch.cat([self.rest, torch.randperm(self._images, generator=self._generator)])
        rows, self.rest = self.rest[: self._size], self.rest[self._size :]
        return rows


@dataclass(kw_only=True, slots=True)
class Training:
    """A training under way: the student and everything else that its next step depends on."""

    student: Student
    hparams: HParams
    optimiser: SGD
    generator: torch.Generator  # of batches and views; dropout draws from torch's own
    batches: Batches
    total: Tensor  # sum of losses since `mean_loss` was last asked, on the device
    step: int = 0  # taken so far
    since: int = 0  # steps that `total` sums over

    @classmethod
    def begin(cls, student: Student, images: int, hparams: HParams, *, seed: int) -> Self:
        """Before the first step of a training on `images` images."""
        generator = torch.Generator().manual_seed(seed)
        return cls(
            student=student,
            hparams=hparams,
            optimiser=_optimiser(student, hparams),
            generator=generator,
            batches=Batches(images, min(hparams.batch_size, images), generator),
            total=torch.zeros((), device=next(student.trained.parameters()).device),
        )

    def advance(self, data: Labelled, stop: int, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Take steps until `stop` have been taken, or fewer once `interrupted`. Nothing waits for the device.

        Raises UsageError where batches of one image leave BatchNorm nothing to take a variance of.
        """
        self.student.train()
        while self.step < stop and not interrupted():
            if self.step in self.hparams.lr_drop_steps:
                for group in self.optimiser.param_groups:
                    group["lr"] /= 10
            rows = next(self.batches)
            logits = _logits(self.student, data, data.inputs.draw(rows, self.generator))
            loss = cross_entropy(logits, data.labels[sent(rows, data.labels.device)])
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.total += loss.detach()
            self.step += 1
            self.since += 1

    def turn_to(self, student: Student) -> None:
        """Go on with a student of which more layers are trained, from the next step on.

        Those that were trained keep their values, their momentum and their rate; the others start without momentum, as
        all did at the first step.
        """
        student.trained[-len(self.student.trained) :].load_state_dict(self.student.trained.state_dict())
        held = {
            name: self.optimiser.state[value].get("momentum_buffer")
            for name, value in self.student.trained.named_parameters()
        }
        self.student, self.optimiser = student, _optimiser(student, self.hparams)
        for name, value in student.trained.named_parameters() if self.hparams.momentum else ():
            momentum = held.get(name)
            # Not None, of which SGD refuses some beside others that are there; from zero it comes to the same.
            kept = torch.zeros_like(value) if momentum is None else torch.empty_like(value).copy_(momentum)
            self.optimiser.state[value]["momentum_buffer"] = kept
        for _ in {drop for drop in self.hparams.lr_drop_steps if drop < self.step}:
            for group in self.optimiser.param_groups:
                group["lr"] /= 10

    def mean_loss(self) -> float:
        """The mean loss of the steps since this was last asked; at least one was taken."""
        mean = self.total.item() / self.since
        self.total, self.since = torch.zeros_like(self.total), 0
        return mean

    def state(self) -> dict[str, Any]:
        """What `resume` needs, as tensors and plain values; torch's own generators are part of it."""
        cuda = torch.cuda.get_rng_state() if self.total.is_cuda else None
        return {
            "network": self.student.trained.state_dict(),
            "momenta": {
                str(place): self.optimiser.state[value].get("momentum_buffer") for place, value in self._moved()
            },
            "rates": [group["lr"] for group in self.optimiser.param_groups],
            "generator": self.generator.get_state(),
            "rest": self.batches.rest.clone(),
            "dropout": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "total": self.total,
            "step": self.step,
            "since": self.since,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, in a training that was begun with the same settings."""
        self.student.trained.load_state_dict(state["network"])
        for place, value in self._moved():
            if (momentum := state["momenta"][str(place)]) is not None:
                # As the value lies in memory, which a file does not tell: the optimiser goes over both side by side.
                self.optimiser.state[value]["momentum_buffer"] = torch.empty_like(value).copy_(momentum)
        for group, rate in zip(self.optimiser.param_groups, state["rates"], strict=True):
            group["lr"] = rate
        self.generator.set_state(state["generator"])
        self.batches.rest = state["rest"]
        torch.set_rng_state(state["dropout"]["cpu"])
        if self.total.is_cuda and state["dropout"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["dropout"]["cuda"])
        self.total = state["total"].to(self.total.device)
        self.step, self.since = state["step"], state["since"]

    def _moved(self) -> Iterator[tuple[int, Tensor]]:
        """What the optimiser moves, numbered."""
        return enumerate(value for group in self.optimiser.param_groups for value in group["params"])


def _optimiser(student: Student, hparams: HParams) -> SGD:
    groups = parameter_groups(student, hparams)
    return SGD(groups, momentum=hparams.momentum, weight_decay=hparams.weight_decay, fused=True)


def _logits(student: Student, data: Labelled, batch: Tensor) -> Tensor:
    """In float32, whatever they were computed in: a classifier alone in float32 too, as where many train at once.

    UsageError where torch's BatchNorm refuses a batch: it must see two values of a channel to have a variance.
    """
    try:
        with mixed(batch.device, wanted=not student.head_alone):
            return data.logits(batch).float()
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise UsageError(
            "train.batch_size: BatchNorm in training mode needs more than one value of each channel, but a batch of"
            f" {len(batch)} image leaves maps of one pixel; take batches of at least 2 or larger images"
        ) from None

"""Many linear classifiers as one: S seeds with R settings each, a step is one batched matrix product.

Classifiers of one seed see the same features, so they stand side by side in one matrix.

Letters: S seeds, R settings, B images of a batch, D features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from fttune.trial import HParams


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sgd:
    """Stochastic gradient descent as torch has it, with each setting's own numbers, [R, 1, 1] (or [R, 1])."""

    rate: Tensor
    decay: Tensor
    speed: Tensor  # momentum

    @classmethod
    def of(cls, settings: Sequence[HParams], like: Tensor) -> Self:
        def column(values: list[float]) -> Tensor:
            return like.new_tensor(values)[:, None, None]

        return cls(
            rate=column([hparams.lr for hparams in settings]),
            decay=column([hparams.weight_decay for hparams in settings]),
            speed=column([hparams.momentum for hparams in settings]),
        )

    def of_biases(self, caffe: bool) -> Self:
        """Biases as weights are, or Caffe's way: twice the rate, no decay."""
        rate, decay = (2 * self.rate, torch.zeros_like(self.decay)) if caffe else (self.rate, self.decay)
        return type(self)(rate=rate[..., 0], decay=decay[..., 0], speed=self.speed[..., 0])

    def move(self, values: Tensor, slope: Tensor, momentum: Tensor, drop: float) -> None:
        """Change `values` and `momentum` in place; rates are multiplied by `drop`."""
        momentum.mul_(self.speed).add_(slope.addcmul_(values, self.decay))
        values.addcmul_(momentum, self.rate, value=-drop)


@dataclass(kw_only=True, slots=True)
class Heads:
    """S x R classifiers in training."""

    weight: Tensor  # [S, R, C, D]
    bias: Tensor  # [S, R, C]
    sgd: tuple[_Sgd, _Sgd]  # of weights, of biases
    momenta: tuple[Tensor, Tensor]

    @classmethod
    def begin(cls, layers: Sequence[nn.Linear], settings: Sequence[HParams]) -> Self:
        """From each seed's fresh layer; the settings may differ in lr, weight_decay and momentum."""
        weight = torch.stack([layer.weight.detach() for layer in layers])[:, None].repeat(1, len(settings), 1, 1)
        bias = torch.stack([layer.bias.detach() for layer in layers])[:, None].repeat(1, len(settings), 1)
        sgd = _Sgd.of(settings, weight)
        return cls(
            weight=weight,
            bias=bias,
            sgd=(sgd, sgd.of_biases(settings[0].biases == "caffe")),
            momenta=(torch.zeros_like(weight), torch.zeros_like(bias)),
        )

    def logits(self, features: Tensor) -> Tensor:
        """From features [S, B, D] to [S, B, R, C]."""
        seeds, settings, classes, width = self.weight.shape
        side_by_side = self.weight.view(seeds, settings * classes, width).transpose(1, 2)
        made = torch.baddbmm(self.bias.view(seeds, 1, -1), features, side_by_side)
        return made.view(seeds, -1, settings, classes)

    def judge(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The classes guessed, int64 [S, B, R], and the cross-entropies [S, B, R], of features [S, B, D]."""
        logits = self.logits(features)
        return logits.argmax(3), -log_softmax(logits, dim=-1).gather(3, self._at(labels))[..., 0]

    def _at(self, labels: Tensor) -> Tensor:
        """Where log-probabilities [S, B, R, C] have the labels int64 [S, B]."""
        return labels[:, :, None, None].expand(-1, -1, self.weight.shape[1], 1)

    def advance(self, features: Tensor, labels: Tensor, drop: float) -> Tensor:
        """One step on features [S, B, D] with labels int64 [S, B]; the mean losses [S, R] before it.

        `drop` multiplies the rates.
        """
        likely = log_softmax(self.logits(features), dim=-1)
        at = self._at(labels)
        losses = -likely.gather(3, at)[..., 0].mean(1)
        # The slope of the mean cross-entropy: probabilities, less one where the label is.
        slope = likely.exp_().scatter_add_(3, at, likely.new_full((), -1).expand(at.shape)).div_(labels.shape[1])
        flat = slope.flatten(2)
        steep = torch.bmm(flat.transpose(1, 2), features).view_as(self.weight)
        self.sgd[0].move(self.weight, steep, self.momenta[0], drop)
        self.sgd[1].move(self.bias, flat.sum(1).view_as(self.bias), self.momenta[1], drop)
        return losses

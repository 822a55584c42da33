"""Apply a layer spec to a pre-trained network: what is frozen, what is tuned, what starts anew, and at which rate."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fttune.backbones.backbone import Fill
from fttune.backbones.staged import initialise, replace_classifier
from fttune.layers import LayerSpec
from fttune.trial import BatchNorm, Biases, Dropout, HParams, seed_from

BN_MOMENTUM = 0.1  # weight of a new batch in running statistics that training moves, torch's own default


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A network cut at its spec."""

    frozen: nn.Sequential  # shared with the source network, eval mode, without gradient; empty for a tuned network
    trained: nn.Sequential  # tuned and new stages, its own
    spec: LayerSpec
    bn: BatchNorm
    dropout: Dropout = "trained"

    @property
    def head_alone(self) -> bool:
        """Whether a new classifier is all that is trained."""
        return not self.spec.tuned and self.spec.random == 1

    @property
    def leaves(self) -> list[nn.Module]:
        """The layers of what is trained, in order."""
        return [module for module in self.trained.modules() if not any(True for _ in module.children())]

    def logits(self, inputs: Tensor) -> Tensor:
        """From images (or, where the frozen part is empty, from its output) to logits [B, classes].

        The frozen part is computed in float32, as what is cached of it is.
        """
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            features = self.frozen(inputs)
        return self.trained(features)

    def train(self) -> None:
        """Training mode for what is trained. Frozen stages stay in eval: BatchNorm fixed, and no dropout.

        With `dropout: all` frozen stages drop as well. Tuned BatchNorm layers keep the source's statistics with
        `bn: source`; their scale and shift are trained.
        """
        self.trained.train()
        if self.dropout == "all":
            for module in self.frozen.modules():
                if isinstance(module, _DropoutNd):
                    module.train()
        if self.bn == "source":
            for stage in list(self.trained)[: self.spec.tuned]:
                for module in stage.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()

    def eval(self) -> None:
        self.frozen.eval()
        self.trained.eval()


def apply_spec(
    net: nn.Sequential,
    spec: LayerSpec,
    *,
    classes: int,
    bn: BatchNorm,
    seed: int,
    dropout: Dropout = "trained",
    fills: Sequence[Fill] = (),
) -> Student:
    """Cut a pre-trained staged network at `spec`. Its values stay as they are: what is trained is a copy.

    Each new layer is initialised from `seed` and its own position, so the classifier starts from the same values
    whatever else is new, and both members of a pair start alike. `fills`: the backbone's own, one for each layer.
    """
    frozen, trained = net[: spec.frozen], copy.deepcopy(net[spec.frozen :])
    replace_classifier(trained, classes)
    for position in range(spec.depth - spec.random, spec.depth):
        stage = trained[position - spec.frozen]
        initialise(stage, seed_from("layer", seed, position), fills[position] if fills else None)
        _quicken(stage)
    if bn == "batch":
        for stage in trained[: spec.tuned]:
            _quicken(stage)
    trained.to(memory_format=torch.channels_last).requires_grad_(True)
    frozen.eval().requires_grad_(False)
    return Student(frozen=frozen, trained=trained, spec=spec, bn=bn, dropout=dropout)


def _quicken(stage: nn.Module) -> None:
    """Let BatchNorm statistics that are to change follow within tens of steps.

    A network made for long training may average over hundreds (EfficientNet-Lite: weight 0.01 of a new batch); its
    layers would then be judged with statistics of values they had long ago.
    """
    for module in stage.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = BN_MOMENTUM


def parameter_groups(student: Student, hparams: HParams) -> list[dict[str, object]]:
    """Optimiser groups: tuned copied layers at `copied_lr_scale` times the rate of new layers (paper, section 3).

    With `biases: caffe` biases learn at twice the rate of their weights, without decay, as in Caffe's own network
    definitions. Frozen parameters are in no group.
    """
    stages = list(student.trained)
    tuned, new = stages[: student.spec.tuned], stages[student.spec.tuned :]
    rates = ((tuned, hparams.lr * hparams.copied_lr_scale), (new, hparams.lr))
    groups = [group for part, rate in rates for group in _groups(part, rate, hparams.biases)]
    return [group for group in groups if group["params"]]


def _groups(stages: Sequence[nn.Module], rate: float, biases: Biases) -> Iterator[dict[str, object]]:
    named = [(name, value) for stage in stages for name, value in stage.named_parameters()]
    if biases == "plain":
        yield {"params": [value for _, value in named], "lr": rate}
        return
    apart = [name.rpartition(".")[2] == "bias" for name, _ in named]
    yield {"params": [value for (_, value), bias in zip(named, apart, strict=True) if not bias], "lr": rate}
    yield {
        "params": [value for (_, value), bias in zip(named, apart, strict=True) if bias],
        "lr": 2 * rate,
        "weight_decay": 0.0,
    }

"""A trained network, whole: from what a trial left and its backbone to one file, and from that file to probabilities.

Letters: B images, S side of the network's input in pixels, C classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from fttune.backbones import catalog
from fttune.backbones.staged import replace_classifier, to_empty
from fttune.backbones.tensors import read_tensors, read_with_values, write_tensors
from fttune.backbones.unit import fuse
from fttune.classifier.card import Card
from fttune.classifier.part import Part
from fttune.errors import StoreError, WeightsError
from fttune.features import at_once


class Classifier(nn.Module):
    """Images as bytes in, probabilities out: normalisation, network and softmax as one module."""

    def __init__(self, net: nn.Sequential, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        # As `fttune.data.views.normalise` has them.
        scale = torch.tensor([1 / (255 * deviation) for deviation in std])
        shift = torch.tensor([-centre / deviation for centre, deviation in zip(mean, std, strict=True)])
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.eval().requires_grad_(False)

    def logits(self, images: Tensor) -> Tensor:
        """From uint8 [B, S, S, 3] to float32 [B, C]."""
        pixels = images.float() * self.get_buffer("scale") + self.get_buffer("shift")
        return self.net(pixels.permute(0, 3, 1, 2))

    def forward(self, images: Tensor) -> Tensor:
        """From uint8 [B, S, S, 3] to probabilities float32 [B, C]."""
        return self.logits(images).softmax(1)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """The same on the CPU for any number of images, in batches: as an evaluation on a CPU has them, bit for bit."""
        fuse(self.net)
        size = at_once(torch.device("cpu"))
        return torch.cat([self(images[start : start + size]) for start in range(0, len(images), size)])

    @classmethod
    def load(cls, path: Path) -> tuple[Self, Card]:
        """The network of a file that `complete` wrote, with its card; no code is in the file, and none of it is run.

        WeightsError, StoreError or UsageError for a file, a card or a backbone that cannot be used.
        """
        state, told = read_with_values(path)
        try:
            card = Card.read(told)
        except StoreError as error:
            raise WeightsError(f"{path}: {error}") from None
        net = catalog.outline(card.record.backbone)
        replace_classifier(net, len(card.classes))
        try:
            to_empty(net).load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(
                f"{path}: not the values of {card.record.backbone}: {str(error).splitlines()[-1].strip()}"
            ) from None
        net.to(memory_format=torch.channels_last)
        return cls(net, card.preprocessing.mean, card.preprocessing.std), card


def complete(part: Part, card: Card, weights: Path | None, path: Path) -> None:
    """Write the whole network of a trial to `path`: what it trained, and what it froze as the backbone has it.

    `weights` takes the place of the file that the catalog finds. WeightsError where it is missing, or another than the
    trial's.
    """
    record, trained = card.record, read_tensors(part.path)
    if catalog.weights_digest(record.backbone, weights) != record.weights_digest:
        raise WeightsError(f"the weights of {record.backbone} on this machine are not those of trial {record.trial_id}")
    whole = catalog.load(record.backbone, weights=weights, classes=len(card.classes)).state_dict()
    if foreign := trained.keys() - whole.keys():
        raise WeightsError(f"{part.path}: {record.backbone} has no place for {min(foreign)}")
    write_tensors(whole | trained, path, card.told())

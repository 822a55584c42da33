"""Krizhevsky's small network for CIFAR-10 (Caffe's cifar10_quick), which tells source from target by their pixels."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fttune.training.optimiser import SGD

_BATCH = 100  # images
_PASSES, _LEAST = 20, 40  # over the training images; optimiser steps, however few images there are
_RATE, _DROP = 0.01, 0.75  # divided by ten after so much of the steps


def build() -> nn.Sequential:
    """The network for images [B, 3, 32, 32], standardised; two outputs."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.Linear(64, 2),
    )


def accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    """Share of held-out images [N, 3, 32, 32] told apart after twenty passes over the others, which standardise pixels.

    The paper names the network and no setting. torch's own generators are left as they were.
    """
    images, labels = _labelled(train)
    held, truth = _labelled(test)
    mean, deviation = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = _trained(build(), (images - mean) / deviation, labels)
    with torch.inference_mode():
        shown = ((held - mean) / deviation).split(_BATCH)
        return float((torch.cat([net(batch).argmax(1) for batch in shown]) == truth).double().mean())


def _trained(net: nn.Sequential, images: Tensor, labels: Tensor) -> nn.Sequential:
    optimiser = SGD(net.parameters(), lr=_RATE, momentum=0.9, weight_decay=0.004)
    steps = max(_LEAST, _PASSES * len(labels) // _BATCH)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [int(_DROP * steps)])
    for _ in range(steps):
        rows = torch.randint(len(labels), (_BATCH,))
        loss = cross_entropy(net(images[rows]), labels[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def _labelled(sides: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    counts = torch.tensor([len(side) for side in sides])
    return torch.from_numpy(np.concatenate(sides)), torch.arange(2).repeat_interleave(counts)

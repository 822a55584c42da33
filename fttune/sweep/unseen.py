"""What a sweep tests on must be new to its networks, those that were trained here included."""

from collections.abc import Iterable, Mapping

from fttune.backbones import networks
from fttune.errors import ConfigError
from fttune.plan import DatasetFacts


def check_unseen(backbones: Iterable[str], sets: Mapping[str, DatasetFacts]) -> None:
    """Raise ConfigError where a network was trained on images that a dataset of the grid tests on."""
    for backbone in backbones:
        provenance = networks.provenance(backbone) if networks.MARK in backbone else None
        for name, facts in sets.items():
            if provenance and facts.digest and facts.digest == provenance["source"]["digest"]:
                # Networks of earlier versions were trained on all images but an official test set.
                _check(backbone, name, facts, provenance["source"].get("test_per_class", 0))


def _check(backbone: str, name: str, facts: DatasetFacts, left: int | None) -> None:
    """`left`: test images of each class that the network has not seen; None: an official test set."""
    if left is not None and left < (facts.test or 0):
        raise ConfigError(
            f"grid.datasets.{name}: the {facts.test} test images of each class must be new to a network, but {backbone}"
            f" was trained on these images with {left} left out; train it again with dataset.test: {facts.test} in its"
            " recipe"
        )

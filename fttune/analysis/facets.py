"""What a page can be narrowed by: the values that are there, and which of them a pair or a run has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fttune.analysis.ratios import DepthPairing, Pair
from fttune.analysis.recommend import BANDS, band, spans
from fttune.record import RunRecord

Edges = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facets:
    """Each facet's values in the order of their buttons. A code such as `0 1 2 0,1 0` names the values of one thing."""

    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    tops: tuple[int, ...]  # layers that are new
    seeds: tuple[int, ...]
    image_edges: Edges

    @classmethod
    def of(cls, records: Sequence[RunRecord], image_edges: Edges) -> "Facets":
        """The values that the runs have."""
        return cls(
            datasets=tuple(sorted({record.dataset for record in records})),
            backbones=tuple(sorted({record.backbone for record in records})),
            tops=tuple(sorted({record.random_top for record in records})),
            seeds=tuple(sorted({record.seed for record in records})),
            image_edges=image_edges,
        )

    @property
    def values(self) -> Mapping[str, Sequence[str]]:
        """By the title of each facet, in the order of a code."""
        return {
            "Dataset": self.datasets,
            "Backbone": self.backbones,
            "Images per class": [f"{name} {span}" for name, span in spans(self.image_edges, whole=True)],
            "New layers": [str(top) for top in self.tops],
            "Seed": [str(seed) for seed in self.seeds],
        }

    def code(self, *, dataset: str, backbone: str, images: int, tops: Sequence[int], seed: int) -> str:
        """What has several values of a facet is shown when any of them is asked for."""
        places = (
            self.datasets.index(dataset),
            self.backbones.index(backbone),
            BANDS.index(band(images, self.image_edges)),
            ",".join(str(self.tops.index(top)) for top in tops),
            self.seeds.index(seed),
        )
        return " ".join(map(str, places))

    def of_pair(self, pair: Pair, tops: Sequence[int]) -> str:
        """A pair has one number of new layers, or two where they differ (Fig. 1)."""
        return self.code(
            dataset=pair.dataset, backbone=pair.backbone, images=pair.images_per_class, tops=tops, seed=pair.seed
        )

    def of_run(self, record: RunRecord) -> str:
        """The values of one run."""
        return self.code(
            dataset=record.dataset,
            backbone=record.backbone,
            images=record.images_per_class,
            tops=[record.random_top],
            seed=record.seed,
        )


def tops_of(depths: DepthPairing) -> tuple[int, int]:
    """The numbers of new layers that a pair of Fig. 1 compares."""
    return depths.top, depths.random_top

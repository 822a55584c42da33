"""Compute the mean activations that ship with a backbone, from a folder of its source's images in class folders.

    uv run python benchmarks/source_means.py FOLDER --backbone efficientnet_lite0 --out fttune/backbones/means

Prints for each size how far the means of two random halves lie apart: the floor of what the measure can tell.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fttune.backbones.catalog import find, weights_digest
from fttune.backbones.source import SourceMean, write_means
from fttune.data.catalog import folder
from fttune.data.store import build
from fttune.distance.metrics import cosine
from fttune.distance.sample import Sample
from fttune.runtime import Runtime
from fttune.trial import stored_size

SIZES = (64, 96, 128, 160, 192, 224)  # pixels


def mean_at(images: Path, backbone: str, size: int, what: str, scratch: Path) -> SourceMean:
    """The mean over every image of a folder at one input size."""
    row = folder("source", images)
    store = build(row.source(), name="source", size=stored_size(size), resize="crop", root=scratch)
    sample = Sample(
        dataset="source",
        data_digest=store.digest,
        test_per_class=0,
        backbone=backbone,
        weights_digest=weights_digest(backbone),
        image_size=size,
        resize="crop",
    )
    runtime = Runtime(store=scratch, cache=scratch)
    features = sample.features(runtime)
    order = np.random.default_rng(0).permutation(len(features))
    halves = [features[part].mean(0) for part in np.array_split(order, 2)]
    apart = float(cosine(halves[0], halves[1]))
    print(f"{backbone} at {size} px: n = {len(features)}, two halves {apart:.4f} apart")
    told = f"{what}; means of two random halves lie {apart:.4f} apart (cosine distance)"
    return sample.mean(runtime, source=find(backbone).source, provenance=told)


def main() -> None:
    """Write BACKBONE.json and BACKBONE.npz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--what", default="1000 ImageNet-1k photographs, one of each class")
    parser.add_argument("--image-size", type=int, nargs="+", default=SIZES, metavar="PX")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        means = [
            mean_at(options.folder, options.backbone, size, options.what, Path(scratch)) for size in options.image_size
        ]
    write_means(options.out, options.backbone, means)


if __name__ == "__main__":
    main()

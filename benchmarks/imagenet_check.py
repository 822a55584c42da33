"""Top-1 accuracy of a backbone's own classifier on ImageNet photographs in folders named by WordNet id.

    uv run python benchmarks/imagenet_check.py FOLDER --image-size 224

Classes are numbered by sorted WordNet id, so the folder must have all thousand.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fttune.backbones.catalog import find, load
from fttune.data.catalog import folder
from fttune.data.store import build
from fttune.features import CENTRE, Norm, features_at, showings, shown
from fttune.trial import stored_size


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-size", type=int, nargs="+", default=[224])
    options = parser.parse_args()
    row, net = find(options.backbone), load(options.backbone)
    for size in options.image_size:
        with TemporaryDirectory() as scratch:
            source = folder("imagenet", options.folder).source()
            store = build(source, name="imagenet", size=stored_size(size), resize="crop", root=Path(scratch))
            images = shown(store, showings(np.arange(len(store.labels)), CENTRE)[0], size, torch.device("cpu"))
            norm = Norm(mean=row.mean, std=row.std)
            logits = torch.cat([reached[row.depth] for reached in features_at(net, [row.depth], images, norm)])
        right = (logits.argmax(1).numpy() == store.labels).mean()
        print(f"{row.name} at {size} px: top-1 {right:.1%} (n = {len(store.labels)}, {len(store.classes)} classes)")


if __name__ == "__main__":
    main()

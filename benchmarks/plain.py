"""The grid as a competent user writes it after the tutorials of Ray Tune and PyTorch; benchmarks/grid.py runs it.

    uv run python benchmarks/plain.py GRID.json RESULTS.json

GRID.json names the image files of each split and the settings. Nothing here is slow on purpose: two trials of one
thread side by side, frozen layers without gradient and in eval mode, reused processes, channels last.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
import torch
from PIL import Image
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Files(Dataset[tuple[torch.Tensor, int]]):
    """Image files with their classes."""

    def __init__(self, files: list[tuple[str, int]], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[place]
        return self.transform(Image.open(path).convert("RGB")), label


def loaders(split: dict[str, list[tuple[str, int]]], size: int, batch: int) -> tuple[DataLoader[Any], ...]:
    """Of train, val and test."""
    normalise = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    cut = [transforms.Resize(size * 8 // 7), transforms.CenterCrop(size)]
    shown = transforms.Compose([*cut, transforms.RandomHorizontalFlip(), *normalise])
    plain = transforms.Compose([*cut, *normalise])
    train = DataLoader(Files(split["train"], shown), batch, shuffle=True, drop_last=len(split["train"]) > batch)
    return train, *(DataLoader(Files(split[part], plain), 64) for part in ("val", "test"))


def network(top: int, freeze: bool, classes: int) -> tuple[nn.Sequential, list[dict[str, Any]], int]:
    """EfficientNet-Lite0 with `top` new layers, the groups of the optimiser (at a rate of one)."""
    from fttune.backbones.catalog import load
    from fttune.backbones.staged import initialise, replace_classifier

    net = load("efficientnet_lite0")
    replace_classifier(net, classes)
    copied, new = net[:-top], net[-top:]
    for position, stage in enumerate(new):
        initialise(stage, position, None)
    if freeze:
        copied.requires_grad_(False)
    groups = [{"params": list(new.parameters()), "scale": 1.0}]
    return net, groups if freeze else [*groups, {"params": list(copied.parameters()), "scale": 0.2}], len(copied)


@torch.no_grad()
def accuracy(net: nn.Module, data: DataLoader[Any]) -> float:
    net.eval()
    right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in data)
    return right / len(data.dataset)  # pyright: ignore[reportArgumentType]


def train(config: dict[str, Any], grid: dict[str, Any]) -> None:
    """One trial."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    split = grid["splits"][config["split"]]
    shown, val, test = loaders(split["files"], grid["size"], grid["batch"])
    net, groups, copied = network(config["top"], config["mode"] == "freeze", split["classes"])
    net.to(memory_format=torch.channels_last)
    rates = [{"params": group["params"], "lr": grid["lr"] * group["scale"]} for group in groups]
    optimiser = torch.optim.SGD(rates, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [grid["steps"] * 2 // 3])
    step, best, kept = 0, -1.0, {}
    while step < grid["steps"]:
        for images, labels in shown:
            net.train()
            net[:copied].eval()
            loss = nn.functional.cross_entropy(net(images.to(memory_format=torch.channels_last)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            if step % grid["report_every"] == 0 or step == grid["steps"]:
                score = accuracy(net, val)
                if score > best:
                    best, kept = score, {name: value.clone() for name, value in net.state_dict().items()}
                tune.report({"val_accuracy": score, "train_loss": loss.item(), "step": step})
            if step == grid["steps"]:
                break
    net.load_state_dict(kept)
    tune.report({"val_accuracy": best, "test_accuracy": accuracy(net, test), "seconds": time.perf_counter() - start})


def main() -> None:
    """Run the grid, write a list of what each trial came to."""
    grid, results = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    logger = MLflowLoggerCallback(tracking_uri=f"sqlite:///{results.parent}/plain.db", experiment_name="plain")
    space = {
        "split": tune.grid_search(list(grid["splits"])),
        "top": tune.grid_search(grid["tops"]),
        "mode": tune.grid_search(["tune", "freeze"]),
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, grid=grid), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(results.parent / "ray"), verbose=0, callbacks=[logger]),
    )
    wanted = ("test_accuracy", "seconds")
    rows = [{**(r.config or {}), **{n: (r.metrics or {})[n] for n in wanted}} for r in tuner.fit()]
    results.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()

"""The grid as a competent user writes it after the tutorials of Ray Tune and PyTorch; benchmarks/grid.py runs it.

    uv run python benchmarks/plain.py GRID.json RESULTS.json

GRID.json names the image files of each split and the settings. Nothing here is slow on purpose: trials of one thread
side by side (on a GPU one at a time, in bfloat16 where it has that), processes that decode ahead where they are asked
for, frozen layers without gradient and in eval mode, reused processes, channels last.
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


def loaders(split: dict[str, list[tuple[str, int]]], grid: dict[str, Any]) -> tuple[DataLoader[Any], ...]:
    """Of train, val and test."""
    size, batch, workers = grid["size"], grid["batch"], grid["workers"]
    normalise = [transforms.ToTensor(), transforms.Normalize(grid["mean"], grid["std"])]
    resize, centre = transforms.Resize(grid["stored"]), transforms.CenterCrop(size)
    crop = [transforms.CenterCrop(grid["stored"]), transforms.RandomCrop(size)]
    cut = crop if grid["views"] == "crop" else [centre]
    shown = transforms.Compose([resize, *cut, transforms.RandomHorizontalFlip(), *normalise])
    plain = transforms.Compose([resize, centre, *normalise])
    ahead = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": torch.cuda.is_available()}
    rest = len(split["train"]) > batch
    train = DataLoader(Files(split["train"], shown), batch, shuffle=True, drop_last=rest, **ahead)
    return train, *(DataLoader(Files(split[part], plain), 64, **ahead) for part in ("val", "test"))


def network(
    grid: dict[str, Any], top: int, freeze: bool, classes: int, seed: int
) -> tuple[nn.Sequential, list[Any], int]:
    """The backbone with `top` new layers, the groups of the optimiser (at a rate of one)."""
    from fttune.backbones import catalog
    from fttune.backbones.staged import initialise, replace_classifier

    weights, fills = grid["weights"], catalog.find(grid["backbone"]).fills
    net = catalog.load(grid["backbone"], weights=Path(weights) if weights else None)
    replace_classifier(net, classes)
    copied, new = net[:-top], net[-top:]
    for position, stage in enumerate(new):
        initialise(stage, 1000 * seed + position, fills[len(copied) + position] if fills else None)
        for part in stage.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1  # this network's own, 0.01, is for hundreds of thousands of steps
    if freeze:
        copied.requires_grad_(False)
    groups = [{"params": list(new.parameters()), "scale": 1.0}]
    return net, groups if freeze else [*groups, {"params": list(copied.parameters()), "scale": 0.2}], len(copied)


@torch.no_grad()
def accuracy(net: nn.Module, data: DataLoader[Any]) -> float:
    net.eval()
    device = next(net.parameters()).device
    right = sum((net(images.to(device)).argmax(1) == labels.to(device)).sum().item() for images, labels in data)
    return right / len(data.dataset)  # pyright: ignore[reportArgumentType]


def train(config: dict[str, Any], grid: dict[str, Any]) -> None:
    """One trial."""
    start = time.perf_counter()
    split = grid["splits"][config["split"]]
    seed = 100 * split["seed"] + config["seed"]
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    shown, val, test = loaders(split["files"], grid)
    net, groups, copied = network(grid, config["top"], config["mode"] == "freeze", split["classes"], seed)
    net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    rates = [{"params": group["params"], "lr": config["lr"] * group["scale"]} for group in groups]
    optimiser = torch.optim.SGD(rates, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [grid["steps"] * 2 // 3])
    step, best, kept = 0, -1.0, {}
    while step < grid["steps"]:
        for images, labels in shown:
            net.train()
            if config["mode"] == "freeze":
                net[:copied].eval()
            for part in net[:copied].modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()  # the source's statistics, tuned or not
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                logits = net(images)
            loss = nn.functional.cross_entropy(logits.float(), labels.to(device, non_blocking=True))
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
        "mode": tune.grid_search(grid["modes"]),
        "lr": tune.grid_search(grid["rates"]),
        "seed": tune.grid_search(grid["seeds"]),
    }
    occupied = {"cpu": float(max(1, grid["workers"]))} | ({"gpu": 1.0} if torch.cuda.is_available() else {})
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, grid=grid), occupied),
        param_space=space,
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(results.parent / "ray"), verbose=0, callbacks=[logger]),
    )
    wanted = ("test_accuracy", "seconds")
    rows = [{**(r.config or {}), **{n: (r.metrics or {})[n] for n in wanted}} for r in tuner.fit()]
    results.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()

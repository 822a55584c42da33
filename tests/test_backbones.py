"""The contract of every backbone, and what is said of files that hold none of its weights."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fttune.backbones import catalog
from fttune.backbones.catalog import BACKBONES, find
from fttune.backbones.staged import check_staged, classifier, initialise, output_shapes, replace_classifier
from fttune.errors import UsageError, WeightsError

names = pytest.mark.parametrize("name", sorted(BACKBONES))


def images(size: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@names
def test_every_backbone_keeps_the_contract(name: str) -> None:
    row = find(name)
    net = catalog.build(name)
    check_staged(net, depth=row.depth, image_size=row.min_image_size)
    assert len(net) == len(row.layers) == row.depth
    assert output_shapes(net, row.min_image_size)[-1] == (classifier(net).out_features,)


@names
@torch.no_grad()
def test_a_cut_anywhere_composes_to_the_whole(name: str) -> None:
    row, net = find(name), catalog.build(name)
    shown = images(row.min_image_size)
    whole = net(shown)
    for cut in range(row.depth + 1):
        assert torch.equal(net[cut:](net[:cut](shown)), whole)


@names
def test_a_network_trains_and_takes_other_classes(name: str) -> None:
    row, net = find(name), catalog.build(name)
    replace_classifier(net, 7)
    logits = net.train()(images(row.min_image_size))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@names
def test_new_values_follow_from_the_seed_alone(name: str) -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        stage = catalog.build(name)[-1]
        initialise(stage, seed)
        drawn.append(torch.cat([p.flatten() for p in stage.parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


@names
def test_an_outline_is_the_network_without_values_or_draws(name: str) -> None:
    state = torch.get_rng_state()
    outline, net = catalog.outline(name).state_dict(), catalog.build(name).state_dict()
    assert {key: value.shape for key, value in outline.items()} == {key: value.shape for key, value in net.items()}
    assert torch.equal(torch.get_rng_state(), state)


@names
def test_dropout_stands_only_where_a_stage_starts(name: str) -> None:
    for stage in catalog.outline(name):
        assert isinstance(stage, nn.Sequential)
        assert not [module for part in stage[1:] for module in part.modules() if isinstance(module, nn.Dropout)]


@names
def test_renaming_leaves_the_names_of_the_network_itself(name: str) -> None:
    assert all(find(name).rename(key) == key for key in catalog.outline(name).state_dict())


def test_reading_weights_imports_no_mathematics_of_symbols() -> None:
    code = "import sys; from fttune.backbones import catalog; catalog.load('efficientnet_lite0'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert "sympy" not in loaded


class _Writes(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        return super().forward(input.mul_(2))


class _Forgets(nn.Linear):
    def __init__(self) -> None:
        super().__init__(12, 2)
        self.register_buffer("scale", torch.ones(1), persistent=False)


def _stages(first: nn.Module, *rest: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Sequential(first, *rest), nn.Sequential(nn.Linear(12, 2)))


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (_stages(nn.Flatten()), "stage 1 of 2 has none"),
        (_stages(nn.Conv2d(3, 3, 1), nn.Flatten())[:1], "got 1 for 2 layers"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), "ends in Conv2d"),
        (nn.Sequential(_Writes(nn.Conv2d(3, 3, 1), nn.Flatten()), nn.Linear(12, 2)), "stage 1 of 2 writes to it"),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten()), _Forgets()), "1.scale is not in it"),
        (
            nn.Sequential(nn.Conv2d(3, 12, 1), nn.Sequential(nn.Flatten(2), nn.Linear(4, 2))),
            r"must give logits \[2, 2\]",
        ),
    ],
    ids=["no parameters", "too few stages", "no classifier", "writes", "forgets", "no logits"],
)
def test_a_network_that_breaks_the_contract_is_refused(net: nn.Sequential, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_staged(net, depth=2, image_size=2)


def test_checking_leaves_each_module_its_mode() -> None:
    net = catalog.build("tiny").train()
    net[1].eval()
    check_staged(net, depth=4, image_size=16)
    assert [stage.training for stage in net] == [True, False, True, True]


def test_a_layer_without_a_rule_is_not_left_as_it_was() -> None:
    with pytest.raises(UsageError, match="no rule to initialise PReLU"):
        initialise(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), 0)


def test_a_new_layer_keeps_no_statistics_of_the_source() -> None:
    net = catalog.load("efficientnet_lite0")
    before = [module for module in net[7].modules() if isinstance(module, nn.BatchNorm2d)]
    initialise(net[7], 0)
    assert all((norm.running_mean == 0).all() and (norm.running_var == 1).all() for norm in before)
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in before)


def test_a_row_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugged-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[fttune.backbones]\nmine = plugged_rows:ROW\n")
    (tmp_path / "plugged_rows.py").write_text(
        "from dataclasses import replace\n"
        "from fttune.backbones.catalog import BACKBONES\n"
        "ROW = replace(BACKBONES['tiny'], name='mine')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find("mine").depth == 4
    assert set(catalog.rows()) == {*BACKBONES, "mine"}
    (package / "entry_points.txt").write_text("[fttune.backbones]\nyours = plugged_rows:ROW\n")
    with pytest.raises(UsageError, match="must name a Backbone called 'yours'"):
        find("yours")


def lite0_file() -> Path:
    find_file = find("efficientnet_lite0").weights
    assert find_file is not None
    return find_file()


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pth"
    cut.write_bytes(lite0_file().read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match=r"cut.pth: not a whole file of torch weights"):
        catalog.load("efficientnet_lite0", weights=cut)


def test_weights_of_another_network_are_refused_by_key(tmp_path: Path) -> None:
    shutil.copy(lite0_file(), tmp_path / "lite0.pth")
    with pytest.raises(WeightsError, match=r"lite0.pth: weights of another network: no value for .* no place for"):
        catalog.load("resnet18", weights=tmp_path / "lite0.pth")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "no value for 0.0.weight"),
        ([1], "holds a list"),
        ({1: torch.zeros(1)}, "must hold a state dict of names and tensors"),
        ({"state_dict": {}}, "must hold a state dict of names and tensors"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused(content: object, told: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=told):
        catalog.load("tiny", weights=tmp_path / "odd.pth")


def test_weights_of_another_shape_are_refused_by_key(tmp_path: Path) -> None:
    state = catalog.load("tiny").state_dict()
    torch.save(state | {"1.0.weight": torch.zeros(16, 8, 5, 5)}, tmp_path / "wide.pth")
    with pytest.raises(WeightsError, match=r"1.0.weight must be \[16, 8, 3, 3\], but is \[16, 8, 5, 5\]"):
        catalog.load("tiny", weights=tmp_path / "wide.pth")


def test_a_file_brings_its_own_number_of_classes(tmp_path: Path) -> None:
    net = catalog.load("tiny", classes=3)
    torch.save(net.state_dict(), tmp_path / "three.pth")
    again = catalog.load("tiny", weights=tmp_path / "three.pth")
    assert torch.equal(again(images(16)), net(images(16)))
    assert classifier(catalog.load("tiny", weights=tmp_path / "three.pth", classes=5)).out_features == 5


def test_files_that_do_not_count_batches_are_read(tmp_path: Path) -> None:
    net = catalog.load("tiny")
    old = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert torch.equal(catalog.load("tiny", weights=tmp_path / "old.pth")(images(16)), net(images(16)))


def test_a_digest_follows_the_content_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    digests = []
    for content in (b"first", b"second", b"first"):
        path.write_bytes(content)
        digests.append(catalog.weights_digest("tiny", path))
    assert digests[0] == digests[2] != digests[1]
    assert digests[0] == hashlib.sha256(b"first").hexdigest()
    with pytest.raises(WeightsError, match=r"none.pth: cannot read the weights"):
        catalog.weights_digest("tiny", tmp_path / "none.pth")


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("loaded code from a weights file",)


def test_a_weights_file_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": _Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError):
        catalog.load("efficientnet_lite0", weights=tmp_path / "evil.pth")
    assert "loaded code" not in capsys.readouterr().out


def test_an_unknown_backbone_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        find("resnet81")

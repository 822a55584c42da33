"""The contract of every backbone, and equality with the networks they are taken from."""

import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from fttune.backbones import catalog
from fttune.backbones.catalog import BACKBONES, find
from fttune.backbones.source import available, source_mean
from fttune.backbones.staged import check_staged, classifier, initialise, output_shapes, replace_classifier
from fttune.errors import UsageError, WeightsError

names = pytest.mark.parametrize("name", sorted(BACKBONES))
from_torchvision = pytest.mark.parametrize("name", ["alexnet", "resnet18"])


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


@from_torchvision
@torch.no_grad()
def test_the_staged_network_is_torchvisions_bit_for_bit(name: str, tmp_path: Path) -> None:
    original = torchvision.models.get_model(name, weights=None)
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    original.eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    staged = catalog.load(name, weights=tmp_path / "weights.pth")
    assert torch.equal(staged(images(224)), original(images(224)))


@from_torchvision
def test_weights_that_are_nowhere_say_where_to_put_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        catalog.load(name)
    assert str(tmp_path / "hub" / "checkpoints") in str(error.value)
    assert f"data.weights: {{{name}: FILE}}" in str(error.value)


@from_torchvision
def test_weights_in_torchs_own_cache_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        catalog.weights_digest(name)
    wanted = Path(str(error.value).split(" at ")[1].split(": put")[0])
    wanted.parent.mkdir(parents=True)
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), wanted)
    assert len(catalog.load(name)) == find(name).depth
    assert len(catalog.weights_digest(name)) == 64


def lite0_file() -> Path:
    find_file = find("efficientnet_lite0").weights
    assert find_file is not None
    return find_file()


def test_every_published_value_of_lite0_has_its_place() -> None:
    published = torch.load(lite0_file(), weights_only=True)
    net = catalog.load("efficientnet_lite0")
    rename = find("efficientnet_lite0").rename
    assert {rename(key) for key in published} == set(net.state_dict())
    for key, value in published.items():
        assert torch.equal(net.state_dict()[rename(key)], value)


@pytest.mark.parametrize("size", [33, 64, 97, 224])
@torch.no_grad()
def test_lite0_takes_images_of_any_size(size: int) -> None:
    net = catalog.load("efficientnet_lite0")
    assert net(images(size)).shape == (2, 1000)


def test_lite0_features_are_what_its_shipped_mean_was_taken_of() -> None:
    assert available("efficientnet_lite0") == (64, 96, 128, 160, 192, 224)
    mean = source_mean("efficientnet_lite0", 128, "crop")
    assert mean is not None
    assert mean.vector.shape == (1280,)
    assert mean.images == 1000
    assert mean.weights_digest == catalog.weights_digest("efficientnet_lite0")
    assert (mean.vector >= 0).all()
    assert "random halves" in mean.provenance
    assert source_mean("efficientnet_lite0", 130, "crop") is None


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pth"
    cut.write_bytes(lite0_file().read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match=r"cut.pth: not a whole file of torch weights"):
        catalog.load("efficientnet_lite0", weights=cut)


def test_weights_of_another_network_are_refused_by_key(tmp_path: Path) -> None:
    shutil.copy(lite0_file(), tmp_path / "lite0.pth")
    with pytest.raises(WeightsError, match=r"lite0.pth: weights of another network: no value for .* no place for"):
        catalog.load("resnet18", weights=tmp_path / "lite0.pth")


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

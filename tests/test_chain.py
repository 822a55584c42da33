"""Networks that one row cuts out of torchvision or timm: equal to their originals, and named as these are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from fttune.backbones import catalog
from fttune.backbones.catalog import chain, find
from fttune.backbones.staged import check_staged, initialise
from fttune.errors import UsageError, WeightsError

from_torchvision = pytest.mark.parametrize("name", ["alexnet", "resnet18", "resnet50", "convnext_tiny"])


def images(size: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "depth"), [("alexnet", 8), ("resnet18", 10), ("resnet50", 18), ("convnext_tiny", 20)])
def test_a_chain_has_a_layer_for_the_stem_each_block_and_the_classifier(name: str, depth: int) -> None:
    row = find(name)
    assert row.depth == depth
    assert len(set(row.layers)) == depth
    if name != "alexnet":
        assert (row.layers[0], row.layers[-1]) == ("stem", "classifier")


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


@from_torchvision
def test_a_row_says_what_torchvision_says_of_its_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    row, shown = find(name), published.transforms()
    assert (list(row.mean), list(row.std), [row.image_size]) == (shown.mean, shown.std, shown.crop_size)
    with pytest.raises(WeightsError, match=published.url.rpartition("/")[2]):
        catalog.weights_digest(name)


_RESNET26 = [f"layer{group}.{block}" for group in range(1, 5) for block in range(2)]
TIMM = {
    "resnet26": ("conv1 bn1 act1 maxpool", *_RESNET26[:-1], f"{_RESNET26[-1]} global_pool", "fc"),
    "repvgg_a0": ("stem", "stages.0", "stages.1", "stages.2", "stages.3 head.global_pool", "head.fc"),
}


@pytest.mark.parametrize("name", sorted(TIMM))
@torch.no_grad()
def test_a_chain_of_timm_is_cut_with_one_row(name: str) -> None:
    import timm

    row = replace(find("resnet18"), name=name, **chain(name, TIMM[name], library="timm"))
    original = timm.create_model(name, pretrained=False).eval()
    staged = row.build().eval()
    staged.load_state_dict({row.rename(key): value for key, value in original.state_dict().items()})
    assert torch.equal(staged(images(64)), original(images(64)))
    check_staged(staged, depth=len(TIMM[name]), image_size=64)


def test_a_path_that_the_original_has_not_is_named() -> None:
    with pytest.raises(UsageError, match=r"AlexNet has no module 'features.99' to cut a stage from"):
        chain("alexnet", ("features.99", "classifier"))["build"]()


@torch.no_grad()
def test_a_new_block_of_convnext_begins_as_the_identity() -> None:
    block = catalog.outline("convnext_tiny").get_submodule("18.0").to_empty(device="cpu").eval()
    initialise(block, 3)
    shown = torch.randn(1, 768, 3, 3)
    assert torch.allclose(block(shown), shown, atol=1e-4)
    assert not torch.equal(block(shown), shown)


def test_features_that_are_not_rectified_have_their_backbone_say_so() -> None:
    shown = images(64, 4)
    with torch.no_grad():
        lowest = {name: catalog.build(name)[:-1](shown).min() for name in ("efficientnet_lite1", "convnext_tiny")}
    assert lowest["efficientnet_lite1"] >= 0
    assert lowest["convnext_tiny"] < 0
    assert "not rectified" in find("convnext_tiny").about

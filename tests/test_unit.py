"""A network that computes in fewer passes computes what it did before, forwards and backwards."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.utils.parametrizations import weight_norm

from fttune.backbones import catalog
from fttune.backbones.catalog import BACKBONES, find
from fttune.backbones.convolution import Frame, SameConv2d, clamp, convolve
from fttune.backbones.unit import Unit, fuse
from fttune.features import Norm
from fttune.layers import LayerSpec
from fttune.training.device import placed
from fttune.training.inputs import ImageInputs, Labelled, Viewer
from fttune.training.loop import score
from fttune.training.steps import Training
from fttune.training.surgery import apply_spec
from fttune.trial import BatchNorm
from values import HPARAMS

CPU = torch.device("cpu")


def shown(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def unsettled(net: nn.Sequential) -> nn.Sequential:
    """With statistics, scales and shifts of BatchNorm that are not those of a fresh layer."""
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.bias):
                assert value is not None
                value.data.normal_(0, 0.1, generator=generator)
            for value in (module.running_var, module.weight):
                assert value is not None
                value.data.uniform_(0.5, 1.5, generator=generator)
    return net


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def is_fused(module: nn.Module) -> bool:
    return module.fused if isinstance(module, Unit) else "forward" in vars(module)


def trained(net: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output for images, and the gradients by all values."""
    torch.manual_seed(0)  # of dropout
    logits = net(images)
    net.zero_grad()
    logits.square().mean().backward()
    return logits.detach(), {name: value.grad for name, value in net.named_parameters() if value.grad is not None}


def all_in_eval(net: nn.Sequential) -> None:
    net.eval()


def statistics_fixed(net: nn.Sequential) -> None:
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def statistics_of_the_batch(net: nn.Sequential) -> None:
    net.train()


@pytest.mark.parametrize("mode", [all_in_eval, statistics_fixed, statistics_of_the_batch])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_gives_the_same_outputs_gradients_and_statistics(
    name: str, mode: Callable[[nn.Sequential], None]
) -> None:
    fused = placed(unsettled(catalog.build(name)).double(), CPU)
    if not any(map(is_fused, fused.modules())):
        return  # it computes as it did
    alone = unsettled(catalog.build(name)).double()
    alone.load_state_dict(fused.state_dict())
    images = shown(4, find(name).min_image_size).double()
    for net in (alone, fused):
        mode(net)
    (logits, slopes), (expected, expected_slopes) = trained(fused, images), trained(alone, images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(slopes, expected_slopes)
    torch.testing.assert_close(fused.state_dict(), alone.state_dict())


@pytest.mark.parametrize(("name", "batch"), [("tiny", "source"), ("efficientnet_lite0", "source"), ("tiny", "batch")])
def test_a_training_has_the_same_losses_and_goes_on_with_more_layers(name: str, batch: BatchNorm) -> None:
    depth, losses = find(name).depth, []
    hparams = replace(HPARAMS, lr=0.05, steps=6, batch_size=8, image_size=32, views="crop")
    images = torch.randint(256, (24, 36, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    inputs = ImageInputs(
        images=images,
        viewer=Viewer.of(hparams, 36, np.arange(24)),
        norm=Norm(mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    for net in (catalog.load(name), placed(catalog.load(name), CPU)):
        legs = [
            apply_spec(net, LayerSpec(frozen=frozen, tuned=depth - 1 - frozen, random=1), classes=3, bn=batch, seed=0)
            for frozen in (depth - 2, 0)
        ]
        assert is_fused(legs[0].trained[0]) == is_fused(net[0])
        data = [Labelled(inputs=inputs, labels=torch.arange(24) % 3, logits=leg.logits) for leg in legs]
        torch.manual_seed(0)
        training = Training.begin(legs[0], 24, hparams, seed=0)
        training.advance(data[0], 3)
        training.turn_to(legs[1])
        training.advance(data[1], 6)
        losses += [training.mean_loss(), score(legs[1], data[1]).loss]
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-5)


def test_only_a_network_that_is_placed_on_a_cpu_is_fused() -> None:
    for name in ("tiny", "efficientnet_lite0"):
        assert not any(map(is_fused, catalog.load(name).modules()))
        net = placed(catalog.load(name), CPU)
        units = [module for module in net.modules() if isinstance(module, Unit)]
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(map(is_fused, units))
        assert len(units) == len(norms) > 0


def test_a_copy_computes_with_its_own_values() -> None:
    net = unsettled(placed(catalog.build("efficientnet_lite0"), CPU)).eval()
    other = copy.deepcopy(net)
    images = shown(1, 32)
    before = net(images)
    assert torch.equal(other(images), before)
    for value in other.parameters():
        value.data.mul_(1.1)
    assert torch.equal(net(images), before)
    assert not torch.allclose(other(images), before)


class Doubling(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


class Striding(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input)[..., ::2]


@pytest.mark.parametrize(
    ("unit", "fused"),
    [
        (Unit(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)), True),
        (Unit(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.ReLU6()), True),
        (Unit(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardtanh(-1, 1)), True),
        (Unit(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)), False),
        (Unit(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)), False),
        (Unit(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), False),
        (Unit(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), False),
        (Unit(nn.Conv2d(3, 4, 3), Doubling(4)), False),
        (Unit(Striding(3, 4, 3), nn.BatchNorm2d(4)), False),
        (Unit(nn.Conv2d(3, 4, 3), nn.ReLU6()), False),
        (Unit(weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)), False),
        (Unit(nn.Conv2d(3, 4, 3)), False),
    ],
)
def test_a_unit_is_fused_if_its_layers_are_plain_and_computes_the_same(unit: Unit, fused: bool) -> None:
    alone = nn.Sequential(unit).double()
    for module in unit.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.running_mean is not None:
            unsettled(alone)
    other = copy.deepcopy(alone)
    fuse(other)
    assert is_fused(other[0]) == fused
    for net in (alone, other):
        statistics_fixed(net)
    (logits, slopes), (expected, expected_slopes) = (
        trained(other, shown(2, 8).double()),
        trained(alone, shown(2, 8).double()),
    )
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(slopes, expected_slopes)


def test_an_average_of_more_than_one_number_is_left_alone() -> None:
    net = nn.Sequential(*(nn.AdaptiveAvgPool2d(size) for size in ((2, 3), (1, None), (2, 1), 1)))
    fuse(net)
    assert [is_fused(layer) for layer in net] == [False, False, False, True]


def test_gradients_below_an_average_lie_in_memory_as_the_maps_do() -> None:
    net, seen = nn.Sequential(nn.ReLU6(), nn.AdaptiveAvgPool2d(1)), []
    fuse(net)
    maps = drawn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    maps.register_hook(seen.append)
    net(maps).sum().backward()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[0], ((maps > 0) & (maps < 6)) / 20)


def test_a_second_derivative_is_refused() -> None:
    conv, images = nn.Conv2d(3, 4, 3), shown(1, 8).requires_grad_()
    made = convolve(images, conv.weight, conv.bias, Frame.of(conv, images)).square().sum()
    (slope,) = torch.autograd.grad(made, images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_tiny"])
def test_under_autocast_a_network_computes_as_torch_has_it(name: str) -> None:
    alone = catalog.build(name).to(memory_format=torch.channels_last)
    fused = placed(copy.deepcopy(alone), CPU)
    for net in (alone, fused):
        statistics_fixed(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (logits, slopes), (expected, expected_slopes) = trained(fused, shown(2, 32)), trained(alone, shown(2, 32))
    assert torch.equal(logits, expected)
    assert all(torch.equal(slopes[name], expected_slopes[name]) for name in expected_slopes)


@given(
    kernel=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.tuples(st.integers(17, 24), st.integers(17, 24)),
    channels=st.sampled_from([(6, 6), (6, 3), (6, 1)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_gradients_of_a_convolution_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    channels: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    width, groups = channels
    conv = nn.Conv2d(width, width, kernel, stride, padding, dilation, groups)
    assert_as_torch(conv, drawn(2, width, *size), dtype)


@given(kernel=st.integers(1, 9), stride=st.integers(1, 3), size=st.tuples(st.integers(9, 20), st.integers(9, 20)))
def test_gradients_with_padding_as_tensorflow_has_it_are_those_of_torch(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    assert_as_torch(SameConv2d(4, 4, kernel, stride, groups=4), drawn(2, 4, *size), torch.float32)


def assert_as_torch(conv: nn.Conv2d, images: Tensor, dtype: torch.dtype) -> None:
    """Outputs and all gradients."""
    conv, images = conv.to(dtype), images.to(dtype)
    conv.to(memory_format=torch.channels_last)
    results = []
    for run in (conv, lambda shown: convolve(shown, conv.weight, conv.bias, Frame.of(conv, shown))):
        leaf = images.clone(memory_format=torch.channels_last).requires_grad_()
        conv.zero_grad()
        made = run(leaf)
        made.backward(torch.arange(made.numel()).sin().to(dtype).view_as(made))
        assert conv.bias is not None
        results.append((made.detach(), leaf.grad, conv.weight.grad, conv.bias.grad))
    torch.testing.assert_close(*results, **({"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}))


def test_the_gradient_of_a_clamp_is_that_of_relu6_at_its_ends_too() -> None:
    values = torch.tensor([-1.0, 0.0, 1e-30, 3.0, 6.0, 6.1, float("inf"), float("nan")])
    slopes = []
    for run in (nn.ReLU6(), lambda shown: clamp(shown * 1)):
        leaf = values.clone().requires_grad_()
        made = run(leaf)
        made.backward(torch.arange(1.0, 9.0))
        slopes.append((made.detach(), leaf.grad))
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_images_without_a_gradient_get_none_and_stay_as_they_are() -> None:
    conv, images = nn.Conv2d(4, 4, 5, groups=4), drawn(1, 4, 9, 9)
    kept = images.clone()
    made = convolve(images, conv.weight, conv.bias, Frame.of(conv, images))
    made.sum().backward()
    assert torch.equal(images, kept)
    torch.testing.assert_close(made, conv2d(images, conv.weight, conv.bias, groups=4))

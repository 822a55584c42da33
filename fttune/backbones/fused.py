"""A network that goes over memory less often on a CPU: a convolution with the BatchNorm behind it in one pass.

Where BatchNorm's statistics are fixed it scales and shifts each channel, which a convolution with scaled weights and a
bias does as well; the gradients of both layers' values follow. Modules, values and modes stay what they are, only how
some modules compute is replaced, so a copy of a fused network is fused too. All results are equal up to rounding.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from fttune.backbones.convolution import Frame, average, clamp, convolve, is_wide_depthwise
from fttune.backbones.efficientnet import SameConv2d


def placed(net: nn.Sequential, device: torch.device) -> nn.Sequential:
    """The network as trials have it: on its device, channels last, and fused on a CPU."""
    net.to(device, memory_format=torch.channels_last)  # pyright: ignore
    return fuse(net) if device.type == "cpu" else net


def fuse(net: nn.Sequential) -> nn.Sequential:
    """The same network, fused where one BatchNorm and nothing else reads a convolution.

    A stage that cannot be traced, since its course depends on values, stays as it is.
    """
    for stage in net:
        for conv, norm, relu6 in _fusible(stage):
            fused = Fused(conv, norm)
            _replace(conv, fused.convolve)
            _replace(norm, fused.normalise)
            _replace(relu6, clamp)
    for module in net.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            _replace(module, average)
    return net


@dataclass(frozen=True, slots=True)
class Fused:
    """A convolution and the BatchNorm behind it, if there is one."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None

    def convolve(self, images: Tensor) -> Tensor:
        """What both make of images [B, C, H, W] where the statistics are fixed; else what the convolution makes."""
        if _mixed(images):
            return type(self.conv).forward(self.conv, images)
        weight, bias = self._values()
        return convolve(images, weight, bias, Frame.of(self.conv, images))

    def normalise(self, maps: Tensor) -> Tensor:
        """What BatchNorm has left to do with the output of `convolve`."""
        norm = self.norm
        return maps if norm is None or not (norm.training or _mixed(maps)) else type(norm).forward(norm, maps)

    def _values(self) -> tuple[Tensor, Tensor | None]:
        norm = self.norm
        if norm is None or norm.training:
            return self.conv.weight, self.conv.bias
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None  # `_fixable`
        assert variance is not None
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        centre = mean if self.conv.bias is None else mean - self.conv.bias
        return self.conv.weight * scale[:, None, None, None], torch.addcmul(norm.bias, centre, scale, value=-1)


def _replace(module: nn.Module | None, forward: Callable[[Tensor], Tensor]) -> None:
    if module:
        module.forward = forward


def _mixed(values: Tensor) -> bool:
    """Whether torch chooses each layer's precision; then each is left to it."""
    return torch.is_autocast_enabled(values.device.type)


class _Tracer(fx.Tracer):
    """Follows a stage down to the modules that have no parts."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


def _fusible(stage: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d | None, nn.ReLU6 | None]]:
    """Convolutions, each with the BatchNorm that alone reads it, and with the ReLU6 that alone reads that."""
    try:
        nodes = _Tracer().trace(stage).nodes
    except Exception:  # whatever somebody's network raises when it is shown no values
        return
    calls = [node for node in nodes if node.op == "call_module"]
    counts = Counter(node.target for node in calls)
    once = {node: stage.get_submodule(str(node.target)) for node in calls if counts[node.target] == 1}

    def reader(node: fx.Node | None) -> fx.Node | None:
        return next(iter(node.users)) if node and len(node.users) == 1 else None

    for node, layer in once.items():
        if (conv := _plain(layer)) is None:
            continue
        behind = reader(node)
        if norm := _fixable(behind and once.get(behind)):
            last = reader(behind)
            relu6 = last and once.get(last)
            yield conv, norm, relu6 if isinstance(relu6, nn.ReLU6) else None
        elif is_wide_depthwise(conv.weight, conv.groups):
            yield conv, None, None


def _plain(layer: nn.Module) -> nn.Conv2d | None:
    """The layer if it is a convolution that pads with zeros, a number of pixels."""
    if not isinstance(layer, nn.Conv2d) or type(layer) not in (nn.Conv2d, SameConv2d):
        return None
    return layer if layer.padding_mode == "zeros" and not isinstance(layer.padding, str) else None


def _fixable(layer: nn.Module | None) -> nn.BatchNorm2d | None:
    """The layer if it scales and shifts each channel by values of its own once its statistics are fixed."""
    if not isinstance(layer, nn.BatchNorm2d) or type(layer) is not nn.BatchNorm2d:
        return None
    return layer if layer.affine and layer.running_mean is not None else None

"""Parts of a network that go over memory less often on a CPU: a convolution with the BatchNorm behind it in one pass.

Where BatchNorm's statistics are fixed it scales and shifts each channel, which a convolution with scaled weights and a
bias does as well; the gradients of both layers' values follow. All results are equal up to rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fttune.backbones.convolution import Frame, SameConv2d, average, clamp, convolve, is_wide_depthwise


class Unit(nn.Sequential):
    """A convolution, the BatchNorm behind it, and what follows; nobody changes its output in place.

    As `nn.Sequential` computes it until `fuse` is told of it.
    """

    fused = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        if not self.fused or _mixed(input):
            return super().forward(input)
        conv, norm, *rest = self
        assert isinstance(conv, nn.Conv2d)  # `fusible`
        assert isinstance(norm, nn.BatchNorm2d)
        weight, bias = (conv.weight, conv.bias) if norm.training else _folded(conv, norm)
        maps = convolve(input, weight, bias, Frame.of(conv, input))
        maps = norm(maps) if norm.training else maps
        if rest and type(rest[0]) is nn.ReLU6:
            maps, rest = clamp(maps), rest[1:]
        for layer in rest:
            maps = layer(maps)
        return maps

    @property
    def fusible(self) -> bool:
        """Whether it begins with a plain convolution and a BatchNorm that has statistics and values."""
        conv, norm, *_ = (*self, None, None)
        plain = isinstance(conv, nn.Conv2d) and _is_plain(conv)
        fixable = type(norm) is nn.BatchNorm2d and norm.affine and norm.running_mean is not None
        return plain and fixable


@dataclass(frozen=True, slots=True)
class Wide:
    """A depthwise convolution with a wide kernel."""

    conv: nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        if _mixed(input):
            return type(self.conv).forward(self.conv, input)
        return convolve(input, self.conv.weight, self.conv.bias, Frame.of(self.conv, input))


def fuse(net: nn.Module) -> None:
    """Let a network's units, wide depthwise convolutions and averages over an image compute in fewer passes.

    Modules, values and modes stay as they are, and a copy computes as its original does. Of networks that are not made
    of units little changes: what else reads a layer's output is not known there.
    """
    for module in net.modules():
        if isinstance(module, Unit):
            module.fused = module.fusible
        elif isinstance(module, nn.Conv2d) and _is_plain(module) and is_wide_depthwise(module.weight, module.groups):
            module.forward = Wide(module).forward
        elif type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            module.forward = average


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The weight and the bias with which the convolution gives what BatchNorm would make of its output."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # `fusible`
    assert variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    centre = mean if conv.bias is None else mean - conv.bias
    return conv.weight * scale[:, None, None, None], torch.addcmul(norm.bias, centre, scale, value=-1)


def _mixed(values: Tensor) -> bool:
    """Whether torch chooses each layer's precision; then each is left to it."""
    return torch.is_autocast_enabled(values.device.type)


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether it pads with zeros, a number of pixels, and computes as its class says."""
    known = type(conv) in (nn.Conv2d, SameConv2d) and "forward" not in vars(conv)
    return known and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)

"""Convolution and ReLU6 with gradients that cost a CPU less than torch's own; equal up to rounding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad

_NARROW = 3  # pixels: the widest depthwise kernel that oneDNN has a way of its own for the gradient of
_MAX = 6.0  # of ReLU6


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's `same`: the odd pixel goes to the bottom and the right."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return super().forward(pad(input, self.margins(*input.shape[-2:])))

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels that are put left and right of, above and below images of this size."""
        top, bottom = _same(height, self.kernel_size[0], self.stride[0])
        left, right = _same(width, self.kernel_size[1], self.stride[1])
        return left, right, top, bottom


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, so that ceil(size / stride) pixels come out."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """How a kernel moves over images, in pixels (down, across)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    margins: tuple[int, int, int, int]  # by which images are widened before: left, right, above, below

    @classmethod
    def of(cls, conv: nn.Conv2d, images: Tensor) -> Self:
        """Of a convolution whose padding is zeros, a number of pixels."""
        return cls(
            stride=conv.stride,
            padding=tuple(int(pixels) for pixels in conv.padding),
            dilation=conv.dilation,
            groups=conv.groups,
            margins=conv.margins(*images.shape[-2:]) if isinstance(conv, SameConv2d) else (0, 0, 0, 0),
        )

    def widen(self, images: Tensor) -> Tensor:
        return pad(images, self.margins) if any(self.margins) else images

    def narrow(self, widened: Tensor) -> Tensor:
        """What `widen` was given."""
        left, right, above, below = self.margins
        height, width = widened.shape[2:]
        return widened[..., above : height - below, left : width - right]

    def convolve(self, widened: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(widened, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def slopes(
        self, slope: Tensor, widened: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients by images and weight, as far as wanted, from that by the output, `slope` [B, C', H', W']."""
        by_images, by_weight = wanted
        apart = by_weight and is_wide_depthwise(weight, self.groups)
        images, values = self._slopes(slope, widened, weight, self.padding, (by_images, by_weight and not apart))
        return images, self._in_columns(slope, widened, weight) if apart else values

    def _slopes(
        self, slope: Tensor, widened: Tensor, weight: Tensor, padding: Sequence[int], wanted: tuple[bool, bool]
    ) -> tuple[Any, Any]:
        how = (self.stride, padding, self.dilation, False, (0, 0), self.groups, (*wanted, False))
        images, values, _ = torch.ops.aten.convolution_backward(slope, widened, weight, None, *how)
        return images, values

    def _in_columns(self, slope: Tensor, widened: Tensor, weight: Tensor) -> Tensor:
        """The gradient of a depthwise kernel, some of its columns at a time.

        oneDNN 3.13 sends a wide one a way that is made for channels that all meet: of a kernel of 5 x 5 that takes ten
        times as long as of 5 x 3.
        """
        whole, (height, width) = torch.empty_like(weight), weight.shape[2:]
        (above, left), (down, across) = self.padding, self.stride
        tall = (slope.shape[2] - 1) * down + self.dilation[0] * (height - 1) + 1
        wide = (slope.shape[3] - 1) * across + self.dilation[1] * (_NARROW - 1) + 1
        for column in (*range(0, width - _NARROW, _NARROW), width - _NARROW):
            before = left - self.dilation[1] * column
            part = pad(widened, (before, wide - before - widened.shape[3], above, tall - above - widened.shape[2]))
            columns = slice(column, column + _NARROW)
            _, whole[..., columns] = self._slopes(slope, part, weight[..., columns], (0, 0), (False, True))
        return whole


def is_wide_depthwise(weight: Tensor, groups: int) -> bool:
    """Whether each channel has a kernel of its own, and that one is wide."""
    return groups == len(weight) > 1 and weight.shape[1] == 1 and weight.shape[3] > _NARROW


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None, frame: Frame) -> Tensor:
    """From images [B, C, H, W] to [B, C', H', W']."""
    if torch.is_grad_enabled():
        return _Convolution.apply(images, weight, bias, frame)
    return frame.convolve(frame.widen(images), weight, bias)


def clamp(values: Tensor) -> Tensor:
    """ReLU6, in place. Its output, of which its gradient is told, is not to be changed; torch would copy its input."""
    if torch.is_grad_enabled() and values.requires_grad:
        return _Clamp.apply(values)
    return values.clamp_(0, _MAX)


def average(input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
    """The mean of each channel of [B, C, H, W], as [B, C, 1, 1]."""
    return _Average.apply(input) if torch.is_grad_enabled() else input.mean((-2, -1), keepdim=True)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, frame: Frame) -> Tensor:
        widened = frame.widen(images)
        ctx.save_for_backward(widened, weight)
        ctx.frame = frame
        return frame.convolve(widened, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (slope,), (widened, weight) = grad_outputs, ctx.saved_tensors
        images, values, bias, _ = ctx.needs_input_grad
        of_images, of_weight = ctx.frame.slopes(slope, widened, weight, (images, values))
        of_images = None if of_images is None else ctx.frame.narrow(of_images)
        # oneDNN's own gradient of a bias takes several times as long as this sum.
        return of_images, of_weight, slope.sum((0, 2, 3)) if bias else None, None


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.mark_dirty(values.clamp_(0, _MAX))
        ctx.save_for_backward(values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # pyright: ignore
        (slope,), (values,) = grad_outputs, ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(slope, values, 0, _MAX)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.size = maps.shape
        return maps.mean((-2, -1), keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # pyright: ignore
        (slope,) = grad_outputs
        # Not spread out: torch's own is, channels first, and the layers below would follow suit.
        return (slope / (ctx.size[-2] * ctx.size[-1])).expand(ctx.size)

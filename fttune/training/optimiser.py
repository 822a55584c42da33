"""Stochastic gradient descent as torch has it."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch

_torch = torch.optim.SGD


class SGD(_torch):
    """The same, without torch's compiler, whose import takes a process two seconds.

    torch wraps these methods for the compiler's sake, and the wraps load it when first called. Nothing here compiles
    an optimiser.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        unwrap(_torch.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        unwrap(_torch.zero_grad)(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        return unwrap(_torch.step)(self, closure)

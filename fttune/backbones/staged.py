"""The contract of a backbone: an `nn.Sequential` whose item i is layer i + 1 of the paper's numbering.

An item, a stage, holds exactly one weighted layer (or block) and what follows it up to the next one, so `net[:k]` and
`net[k:]` are the copied and the new part of a network; they share weights and compose. Dropout stands at the start of
the stage that it feeds: the input of the classifier stage is then the clean activation of the layer below.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fttune.backbones.backbone import Fill
from fttune.errors import UsageError

_LAYER_SCALE = 1e-6  # of ConvNeXt's blocks (Liu et al. 2022), which begin as the identity
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


@torch.no_grad()
def check_staged(net: nn.Sequential, *, depth: int, image_size: int) -> None:
    """Raise UsageError, naming the stage, unless `net` keeps the contract for images of `image_size` pixels.

    Modes and values are left as they were. Whether a stage holds one weighted layer is not checked: a block may be one.
    """
    if len(net) != depth:
        raise UsageError(f"a staged network must have one stage per layer, but got {len(net)} for {depth} layers")
    for number, stage in enumerate(net, start=1):
        if not any(True for _ in stage.parameters()):
            raise UsageError(f"every stage must have parameters, but stage {number} of {depth} has none")
    held = {name for name, _ in (*net.named_parameters(), *net.named_buffers())}
    if lost := held - net.state_dict().keys():
        raise UsageError(f"the state dict must hold every value of a network, but {min(lost)} is not in it")
    classes = classifier(net).out_features
    with _evaluating(net):
        images = _images(net, image_size, count=2)
        logits = _check_steps(net, images)
        if not torch.equal(net(images), logits):
            raise UsageError("stage by stage must equal the whole network, but their outputs differ")
    if logits.shape != (2, classes):
        raise UsageError(f"two images must give logits [2, {classes}], but got {list(logits.shape)}")


def classifier(net: nn.Sequential) -> nn.Linear:
    """The last layer of the last stage; UsageError when that is no `nn.Linear`."""
    last = _innermost(net)[-1]
    if not isinstance(last, nn.Linear):
        raise UsageError(f"the last stage must end in nn.Linear, but it ends in {type(last).__name__}")
    return last


def replace_classifier(net: nn.Sequential, classes: int) -> None:
    """Swap the last linear layer for one with `classes` outputs and values from seed 0; dropout before it is kept."""
    old = classifier(net)
    with torch.random.fork_rng(devices=[]):  # what torch draws first is replaced, and its generator left as it was
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None, device="cpu")
    initialise(new, 0)
    new.to(old.weight.device, old.weight.dtype)
    _innermost(net)[-1] = new.train(old.training)


def to_empty(net: nn.Module) -> nn.Module:
    """The network, changed: on the CPU instead of the meta device, with room for its values.

    `nn.Module.to_empty` would import a library of symbolic mathematics to ask how much room that is: a third of a
    second in each process.
    """
    return net._apply(lambda value: torch.empty(value.shape, dtype=value.dtype))


@torch.no_grad()
def initialise(stage: nn.Module, seed: int, fill: Fill | None = None) -> None:
    """Give a layer fresh values that follow from `seed` alone; torch's own generators are not touched.

    Convolutions: normal with variance 2 / fan-out (He et al. 2015), a group's fan-out where there are groups. Linear
    layers: normal(0, 0.01). Biases 0. Where the backbone has values of its own, `fill` takes the place of these.
    Normalisation: scale 1, shift 0, running statistics reset. Layer scale: 1e-6. UsageError for any other layer with
    parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in stage.modules():
        if isinstance(module, _ConvNd):
            fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
            _draw(module, fill or Fill(std=math.sqrt(2 / fan_out)), generator)
        elif isinstance(module, nn.Linear):
            _draw(module, fill or Fill(std=0.01), generator)
        elif isinstance(module, _NORMS):
            _reset(module)
        elif set(dict(module.named_parameters(recurse=False))) == {"layer_scale"}:
            module.get_parameter("layer_scale").fill_(_LAYER_SCALE)
        elif any(True for _ in module.parameters(recurse=False)):
            raise UsageError(
                f"no rule to initialise {type(module).__name__}: a new layer is made of convolutions, linear layers"
                " and normalisation"
            )


@torch.no_grad()
def output_shapes(net: nn.Sequential, image_size: int) -> list[tuple[int, ...]]:
    """The shape of each stage's output for one image of `image_size` pixels, such as (32, 112, 112) or (1000,)."""
    with _evaluating(net):
        images = _images(net, image_size, count=1)
        return [tuple((images := stage(images)).shape[1:]) for stage in net]


def _innermost(net: nn.Sequential) -> nn.Sequential:
    """The sequence that holds the last layer."""
    while isinstance(last := net[-1], nn.Sequential):
        net = last
    return net


def _check_steps(net: nn.Sequential, images: Tensor) -> Tensor:
    """The output of the last stage; UsageError when a stage changes what it is given.

    What a stage is given may be cached features, which are shared and read-only.
    """
    given = images
    for number, stage in enumerate(net, start=1):
        kept = given.clone()
        made = stage(given)
        if not torch.equal(given, kept):
            raise UsageError(f"a stage must leave its input as it is, but stage {number} of {len(net)} writes to it")
        given = made
    return given


def _draw(module: nn.Linear | _ConvNd, fill: Fill, generator: torch.Generator) -> None:
    # Drawn on the CPU, so that the values are the same on every device.
    module.weight.copy_(torch.empty(module.weight.shape, device="cpu").normal_(0, fill.std, generator=generator))
    if module.bias is not None:
        module.bias.fill_(fill.bias)


def _reset(norm: nn.Module) -> None:
    if isinstance(norm, _NormBase):
        norm.reset_running_stats()
    for name, value in norm.named_parameters(recurse=False):
        value.fill_(1.0 if name == "weight" else 0.0)


def _images(net: nn.Sequential, size: int, *, count: int) -> Tensor:
    """Random images [count, 3, size, size] on the network's device."""
    first = next(net.parameters())
    images = torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return images.to(first.device, first.dtype)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode within the block; afterwards each module has its own mode again."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

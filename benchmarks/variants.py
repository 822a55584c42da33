"""Ways to train tuned networks that fttune does not take, against the bare loop of benchmarks/step.py.

    uv run python benchmarks/variants.py [--device cpu|cuda] [--batch N] [--together N]

*Rounded* (on a CPU): in bfloat16, as on a GPU that has it. *Compiled*: the network through `torch.compile` (on a GPU as
CUDA graphs). *Together*: several networks as one, stacked by `torch.func`, whose convolutions become grouped ones, each
with images of its own. All after one step that pays for what is made once. Networks, batches and rounds are those of
benchmarks/step.py; above one the variant wins.
"""

import argparse
import copy
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter

import torch
from step import SIZES, Case, seconds
from torch.func import functional_call, stack_module_state
from torch.nn.functional import cross_entropy

from fttune.training.device import mixed


def rounded(case: Case) -> Callable[[int], None]:
    """Steps of a copy of the network in bfloat16 over the first batch."""
    mixed_precision = torch.autocast(case.device.type, torch.bfloat16)
    return case.bare_training(lambda network: setattr(network, "forward", mixed_precision(network.forward)))


def compiled(case: Case) -> Callable[[int], None]:
    """Steps of a compiled copy of the network over the first batch."""
    torch.compiler.reset()  # or sizes of the network before would count as ones that change
    mode = "reduce-overhead" if case.device.type == "cuda" else None
    return case.bare_training(lambda network: network.compile(mode=mode))


def together(case: Case, count: int) -> Callable[[int], None]:
    """Steps of `count` copies of the network at once."""
    images, labels = case.batch()
    student = copy.deepcopy(case.bare)
    student.train()
    values, rest = stack_module_state([student.trained] * count)
    optimiser = torch.optim.SGD(values.values(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)

    def loss(
        values: dict[str, torch.Tensor], rest: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropy(functional_call(student.trained, (values, rest), (images,)), labels)

    losses = torch.vmap(loss, randomness="different")
    # Channels last in each network's images, as the bare loop has them.
    own = torch.stack([images.permute(0, 2, 3, 1)] * count).permute(0, 1, 4, 2, 3), torch.stack([labels] * count)

    def run(steps: int) -> None:
        for _ in range(steps):
            with mixed(case.device):
                total = losses(values, rest, *own).sum()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()

    return run


def compare(name: str, case: Case, variant: Callable[[int], None], networks: int, options: argparse.Namespace) -> None:
    """Print the ratio of bare seconds to the variant's over rounds taken in turn."""
    bare, start = case.bare_training(), perf_counter()
    variant(1)
    first = perf_counter() - start
    for run in (bare, variant):
        seconds(run, options.steps, case.device)
    ratios = [
        networks * seconds(bare, options.steps, case.device) / seconds(variant, options.steps, case.device)
        for _ in range(options.rounds)
    ]
    low, _, high = quantiles(ratios, n=4)
    spread = f"(quartiles {low:.2f} to {high:.2f}, n = {len(ratios)})"
    print(f"{name:44} {median(ratios):.2f} {spread}, the first step {first:.0f} s", flush=True)


def main() -> None:
    """Each network in each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--networks", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument("--batch", type=int, default=32, help="images of a step")
    parser.add_argument("--together", type=int, default=3, help="networks that are stacked")
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for name in options.networks:
        case = Case.of(name, torch.device(options.device), options.batch, 2 * options.batch)
        if case.device.type == "cpu":  # on a GPU the bare loop has it too
            compare(f"{name}@{SIZES[name]} rounded", case, rounded(case), 1, options)
        compare(f"{name}@{SIZES[name]} compiled", case, compiled(case), 1, options)
        stacked = together(case, options.together)
        compare(f"{name}@{SIZES[name]}, {options.together} together", case, stacked, options.together, options)


if __name__ == "__main__":
    main()

"""A layer spec decides what moves, at which rate, and from which values it starts."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fttune.backbones import catalog
from fttune.layers import LayerSpec
from fttune.training.surgery import Student, apply_spec, parameter_groups
from fttune.trial import BatchNorm, Dropout
from values import HPARAMS


def student(text: str, *, bn: BatchNorm = "source", seed: int = 0) -> Student:
    net = catalog.load("tiny")
    return apply_spec(net, LayerSpec.parse(text, depth=4), classes=3, bn=bn, seed=seed)


def step(student: Student) -> None:
    """One optimiser step large enough to move everything that can move."""
    optimiser = torch.optim.SGD(parameter_groups(student, replace(HPARAMS, lr=1.0)), weight_decay=0.1)
    student.train()
    student.logits(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimiser.step()


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("text", ["F(1-3)R(4)", "F(1-2)R(3-4)", "F(1)T(2-3)R(4)"])
def test_frozen_layers_do_not_change_by_a_bit_batchnorm_included(text: str) -> None:
    subject = student(text)
    before = state(subject.frozen)
    step(subject)
    assert same(before, state(subject.frozen))


def test_every_trained_stage_moves() -> None:
    subject = student("T(1-3)R(4)")
    before = [state(stage) for stage in subject.trained]
    step(subject)
    assert not any(same(old, state(stage)) for old, stage in zip(before, subject.trained, strict=True))


def test_copied_layers_learn_at_a_fifth_of_the_rate_of_new_ones() -> None:
    groups = parameter_groups(student("F(1)T(2-3)R(4)"), HPARAMS)
    assert [group["lr"] for group in groups] == pytest.approx([0.2 * HPARAMS.lr, HPARAMS.lr])


@pytest.mark.parametrize("text", ["F(1-3)R(4)", "T(1-3)R(4)", "F(1)T(2)R(3-4)", "R(1-4)"])
def test_the_optimiser_has_every_parameter_that_is_not_frozen_once(text: str) -> None:
    subject = student(text)
    held = [id(p) for group in parameter_groups(subject, HPARAMS) for p in group["params"]]  # pyright: ignore
    assert sorted(held) == sorted(id(p) for p in subject.trained.parameters())
    assert not set(held) & {id(p) for p in subject.frozen.parameters()}


def test_copied_layers_start_from_the_source_and_new_ones_do_not() -> None:
    subject, source = student("T(1-2)R(3-4)"), catalog.load("tiny")
    assert same(state(source[0]), state(subject.trained[0]))
    assert same(state(source[1]), state(subject.trained[1]))
    assert not same(state(source[2]), state(subject.trained[2]))


def test_both_members_of_a_pair_start_from_the_same_new_values() -> None:
    frozen, tuned = student("F(1-2)R(3-4)"), student("T(1-2)R(3-4)")
    assert same(state(frozen.trained[-1]), state(tuned.trained[-1]))
    assert same(state(frozen.trained[-2]), state(tuned.trained[-2]))
    assert same(state(student("F(1-3)R(4)").trained[-1]), state(tuned.trained[-1]))
    assert not same(state(student("F(1-2)R(3-4)", seed=1).trained[-1]), state(tuned.trained[-1]))


def test_a_student_is_the_composition_of_its_parts() -> None:
    subject = student("F(1-2)R(3-4)")
    subject.eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(subject.logits(images), subject.trained(subject.frozen(images)))


@pytest.mark.parametrize(("bn", "moves"), [("source", False), ("batch", True)])
def test_statistics_of_tuned_batchnorm_follow_the_policy(bn: BatchNorm, moves: bool) -> None:
    subject = student("T(1-2)R(3-4)", bn=bn)
    norms = [[m for m in stage.modules() if isinstance(m, _BatchNorm)] for stage in subject.trained]
    before = [[norm.running_mean.clone() for norm in stage] for stage in norms]  # pyright: ignore
    step(subject)
    for position, stage in enumerate(norms[:3]):
        assert stage
        for norm, old in zip(stage, before[position], strict=True):
            changed = not torch.equal(norm.running_mean, old)  # pyright: ignore
            assert changed is (moves if position < 2 else True)


@pytest.mark.parametrize(("bn", "weights"), [("source", [0.01, 0.01, 0.1]), ("batch", [0.01, 0.1, 0.1])])
def test_statistics_that_move_are_averaged_over_tens_of_steps(bn: BatchNorm, weights: list[float]) -> None:
    net = catalog.load("efficientnet_lite0")
    cut = apply_spec(net, LayerSpec(frozen=2, tuned=6, random=2), classes=3, bn=bn, seed=0)
    parts = [cut.frozen, cut.trained[:6], cut.trained[6:]]
    found = [{m.momentum for m in part.modules() if isinstance(m, _BatchNorm)} for part in parts]
    assert found == [{weight} for weight in weights]


def test_biases_the_caffe_way_learn_at_twice_the_rate_without_decay() -> None:
    subject = student("F(1)T(2-3)R(4)")
    groups = parameter_groups(subject, replace(HPARAMS, biases="caffe"))
    assert [group["lr"] for group in groups] == pytest.approx([HPARAMS.lr * scale for scale in (0.2, 0.4, 1, 2)])
    assert [group.get("weight_decay") for group in groups] == [None, 0, None, 0]
    biases = [value for name, value in subject.trained.named_parameters() if name.endswith("bias")]
    held = [value for group in groups[1::2] for value in group["params"]]  # pyright: ignore[reportGeneralTypeIssues]
    assert [id(value) for value in held] == [id(value) for value in biases]


def dropping(dropout: Dropout) -> Student:
    """A frozen stage that drops, below a new classifier."""
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 64)), nn.Sequential(nn.Linear(64, 3))]
    spec = LayerSpec.parse("F(1)R(2)", depth=2)
    return apply_spec(nn.Sequential(*stages), spec, classes=3, bn="source", seed=0, dropout=dropout)


@pytest.mark.parametrize(("dropout", "differs"), [("trained", False), ("all", True)])
def test_a_frozen_stage_drops_in_training_only_if_all_do(dropout: Dropout, differs: bool) -> None:
    subject, images = dropping(dropout), torch.ones(8, 64)
    subject.train()
    assert (not torch.equal(subject.logits(images), subject.logits(images))) == differs
    before = state(subject.frozen)
    optimiser = torch.optim.SGD(parameter_groups(subject, HPARAMS), lr=1.0)
    subject.logits(images).sum().backward()
    optimiser.step()
    assert same(before, state(subject.frozen))
    subject.eval()
    assert torch.equal(subject.logits(images), subject.logits(images))

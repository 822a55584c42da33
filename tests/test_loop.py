"""The loop: batches without favour, the best report kept, rates dropped on time, one seed one result."""

import math
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from fttune.errors import UsageError
from fttune.feature_cache import FeatureTable
from fttune.layers import LayerSpec
from fttune.record import CurvePoint
from fttune.training.inputs import FeatureInputs
from fttune.training.loop import Best, Labelled, Scores, fit, score
from fttune.training.optimiser import SGD
from fttune.training.steps import Batches, Training
from fttune.training.surgery import Student
from values import HPARAMS

LABELS = torch.arange(24) % 3


def linear_student(weight: Tensor | None = None) -> Student:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.zeros(3, 4) if weight is None else weight)
        layer.bias.zero_()
    spec = LayerSpec(frozen=1, tuned=0, random=1)
    return Student(frozen=nn.Sequential(), trained=nn.Sequential(layer), spec=spec, bn="source")


def data(student: Student, *, noise: float = 0.0, seed: int = 0) -> Labelled:
    features = torch.eye(4)[LABELS] + noise * torch.randn(24, 4, generator=torch.Generator().manual_seed(seed))
    inputs = FeatureInputs(table=FeatureTable.of(features), images=24, hparams=HPARAMS)
    return Labelled(inputs=inputs, labels=LABELS, logits=student.trained)


@pytest.mark.parametrize(("images", "size"), [(10, 4), (10, 10), (3, 2), (7, 1)])
def test_each_image_comes_once_before_any_comes_again(images: int, size: int) -> None:
    batches = list(islice(Batches(images, size, torch.Generator().manual_seed(0)), 50))
    assert {len(batch) for batch in batches} == {size}
    stream = torch.cat(batches).tolist()
    for start in range(0, len(stream) - images, images):
        assert sorted(stream[start : start + images]) == list(range(images))


def test_one_step_is_sgd_with_momentum_and_decay_by_hand() -> None:
    hparams = replace(HPARAMS, steps=2, report_every=2, batch_size=24, momentum=0.5, weight_decay=0.1, lr=0.3)
    student = linear_student(torch.ones(3, 4))
    train = data(student, noise=0.3)
    weight, velocity = torch.ones(3, 4), torch.zeros(3, 4)
    bias, bias_velocity = torch.zeros(3), torch.zeros(3)
    features, onehot = train.inputs.show(slice(None)), torch.eye(3)[LABELS]
    for _ in range(2):
        error = (torch.softmax(features @ weight.T + bias, 1) - onehot) / 24
        velocity = 0.5 * velocity + error.T @ features + 0.1 * weight
        bias_velocity = 0.5 * bias_velocity + error.sum(0) + 0.1 * bias
        weight, bias = weight - 0.3 * velocity, bias - 0.3 * bias_velocity
    # A val set that the second step cannot make worse keeps the last step's weights.
    fit(student, train, train, hparams, seed=0, report=lambda point: None)
    layer = student.trained[0]
    assert isinstance(layer, nn.Linear)
    assert torch.allclose(layer.weight, weight, atol=1e-6)
    assert torch.allclose(layer.bias, bias, atol=1e-6)


def test_reports_come_every_so_many_steps_and_at_the_end() -> None:
    points: list[CurvePoint] = []
    student = linear_student()
    fit(student, data(student), data(student), replace(HPARAMS, steps=11, report_every=4), seed=0, report=points.append)
    assert [point.step for point in points] == [4, 8, 11]
    assert points[-1].train_loss < points[0].train_loss


def test_the_rate_drops_by_ten_after_the_given_steps() -> None:
    losses = {}
    for drops in ((), (2,)):
        student = linear_student()
        points: list[CurvePoint] = []
        hparams = replace(HPARAMS, steps=4, report_every=1, lr_drop_steps=drops, momentum=0.0)
        fit(student, data(student), data(student), hparams, seed=0, report=points.append)
        losses[drops] = [point.val_loss for point in points]
    assert losses[()][:2] == losses[(2,)][:2]
    moved, slowed = (losses[drops][1] - losses[drops][2] for drops in ((), (2,)))
    assert slowed == pytest.approx(moved / 10, rel=0.1)


def test_the_best_report_wins_and_ties_go_to_the_lower_loss_then_to_the_earlier_step() -> None:
    best, module = Best(), nn.Linear(1, 1)
    told = [(0.5, 1.0), (0.7, 0.9), (0.7, 0.8), (0.7, 0.799999), (0.6, 0.1), (0.7, math.nan)]
    for step, (accuracy, loss) in enumerate(told):
        best.offer(step, Scores(accuracy=accuracy, mean_class_accuracy=accuracy, loss=loss), module.state_dict())
    assert best.step == 2


def test_the_student_ends_with_the_weights_of_its_best_step() -> None:
    student = linear_student()
    hparams = replace(HPARAMS, steps=30, report_every=1, lr=5.0, batch_size=2)
    train, val = data(student, noise=2.0), data(student, noise=2.0, seed=1)
    points: list[CurvePoint] = []
    outcome = fit(student, train, val, hparams, seed=0, report=points.append)
    assert outcome.val.accuracy == max(point.val_accuracy for point in points)
    assert points[outcome.best_step - 1].val_accuracy == outcome.val.accuracy
    assert score(student, val).accuracy == outcome.val.accuracy
    assert points[-1].val_accuracy < outcome.val.accuracy


def test_a_loss_that_leaves_the_numbers_ends_training_and_keeps_what_was_best() -> None:
    student = linear_student()
    points: list[CurvePoint] = []
    hparams = replace(HPARAMS, steps=1000, report_every=1, lr=1e18, weight_decay=1e18)
    outcome = fit(student, data(student), data(student), hparams, seed=0, report=points.append)
    assert outcome.steps < 1000
    assert not math.isfinite(points[-1].train_loss)
    assert outcome.best_step <= outcome.steps


def test_mean_class_accuracy_weighs_classes_and_accuracy_weighs_images() -> None:
    student = linear_student()
    labels = torch.tensor([0, 0, 0, 1])
    inputs = FeatureInputs(table=FeatureTable.of(torch.zeros(4, 4)), images=4, hparams=HPARAMS)
    scores = score(student, Labelled(inputs=inputs, labels=labels, logits=student.trained))
    assert scores.accuracy == 0.75
    assert scores.mean_class_accuracy == 0.5
    assert scores.loss == pytest.approx(math.log(3))


def test_one_seed_one_result_another_seed_another() -> None:
    curves = []
    for seed in (0, 0, 1):
        student = linear_student()
        points: list[CurvePoint] = []
        fit(student, data(student, noise=1.0), data(student), HPARAMS, seed=seed, report=points.append)
        curves.append([point.train_loss for point in points])
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]
    assert Counter(map(len, curves)) == {4: 3}


def normed(size: int, batch: int) -> None:
    """One step of a network with BatchNorm on batches of `batch` images of `size` pixels."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * size**2, 3))
    spec = LayerSpec(frozen=0, tuned=0, random=1)
    student = Student(frozen=nn.Sequential(), trained=nn.Sequential(layers), spec=spec, bn="batch")
    inputs = FeatureInputs(table=FeatureTable.of(torch.randn(24, 3, size, size)), images=24, hparams=HPARAMS)
    shown = Labelled(inputs=inputs, labels=LABELS, logits=student.trained)
    Training.begin(student, 24, replace(HPARAMS, batch_size=batch), seed=0).advance(shown, 1)


def test_a_batch_without_a_variance_is_refused_in_one_line_and_others_are_not() -> None:
    normed(1, 2)
    normed(2, 1)
    with pytest.raises(
        UsageError, match=r"^train.batch_size: BatchNorm .* a batch of 1 image .* batches of at least 2"
    ):
        normed(1, 1)


def test_another_mistake_in_a_network_keeps_its_own_words() -> None:
    student = linear_student()
    broken = replace(data(student), logits=lambda batch: torch.tensor(int("odd")))
    with pytest.raises(ValueError, match="invalid literal"):
        Training.begin(student, 24, HPARAMS, seed=0).advance(broken, 1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_is_torchs_own(momentum: float) -> None:
    def weights(kind: type[torch.optim.SGD]) -> torch.Tensor:
        generator, net = torch.Generator().manual_seed(0), torch.nn.Linear(6, 3)
        net.load_state_dict({"weight": torch.ones(3, 6), "bias": torch.zeros(3)})
        groups = [{"params": [net.weight], "lr": 0.1}, {"params": [net.bias], "lr": 0.2, "weight_decay": 0.0}]
        optimiser = kind(groups, momentum=momentum, weight_decay=0.01, fused=True)
        for _ in range(5):
            optimiser.zero_grad()
            net(torch.randn(4, 6, generator=generator)).square().sum().mul(0.01).backward()
            optimiser.step()
        return torch.cat([net.weight.detach().ravel(), net.bias.detach()])

    assert torch.equal(weights(SGD), weights(torch.optim.SGD))
    assert not torch.equal(weights(SGD), torch.cat([torch.ones(18), torch.zeros(3)]))

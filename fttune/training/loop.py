"""The training loop: steps of SGD with reports, and the weights of the best report kept."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fttune.features import at_once
from fttune.record import CurvePoint
from fttune.training.inputs import Labelled
from fttune.training.keeper import Keeper
from fttune.training.steps import Training
from fttune.training.surgery import Student
from fttune.trial import HParams

Report = Callable[[CurvePoint], None]
_DIGITS = 4  # of a val loss, after the point, that tell one report from another


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """The part of a training in which the same layers are trained: the student, and what it reads."""

    student: Student
    train: Labelled
    val: Labelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """The legs of a training, one after the other; each is set up when it begins."""

    set_up: Callable[[int], Leg]  # by its number, from 0; its student starts as the source has it
    stops: Sequence[int]  # steps of the whole training after which each ends; rising


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How well a network does on a set; accuracies are fractions."""

    accuracy: float  # top-1
    mean_class_accuracy: float  # mean over the classes present of each class's accuracy
    loss: float  # mean cross-entropy


class Clock:
    """Seconds spent under each name, measured between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {"train": 0.0, "eval": 0.0, "save": 0.0, "feature": 0.0}
        self.before = 0.0  # seconds of the laps that an earlier process spent
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] += now - self._last
        self._last = now

    def resume(self, laps: Mapping[str, float]) -> None:
        self.laps, self.before = {**self.laps, **laps}, sum(laps.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a training came to."""

    best_step: int  # 0: there were no steps
    val: Scores
    steps: int  # taken; fewer than asked only when the loss left the numbers
    train_seconds: float
    eval_seconds: float
    curve: tuple[float, ...] = ()  # val accuracy at each report
    pruned_step: int | None = None  # where it fell below the bar
    resumed_step: int | None = None  # where it was taken up
    feature_seconds: float = 0.0  # setting up legs after the first
    seconds_before: float = 0.0  # of what the training took, those of processes that did not live to its end
    strength: float | None = None  # of a convex probe, that val preferred: scikit-learn's C


@dataclass(kw_only=True, slots=True)
class Best:
    """The report with the highest val accuracy so far; ties go to the lower val loss, then to the earlier step."""

    step: int = 0
    scores: Scores | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    leg: int = 0  # whose trained layers `state` has

    def offer(self, step: int, scores: Scores, state: Mapping[str, Tensor], leg: int = 0) -> None:
        """Keep a copy of `state` if `scores` are the best."""
        if self.scores is None or _rank(scores) > _rank(self.scores):
            self.step, self.scores, self.leg = step, scores, leg
            self.state = {name: value.detach().clone() for name, value in state.items()}

    def fit(self, steps: int, clock: Clock, *, share: float = 1.0) -> Fit:
        """How a training of `steps` steps ended, with its share of the seconds; at least one report was offered."""
        assert self.scores is not None
        seconds = {name: lap * share for name, lap in clock.laps.items()}
        return Fit(
            best_step=self.step,
            val=self.scores,
            steps=steps,
            train_seconds=seconds["train"],
            eval_seconds=seconds["eval"],
            feature_seconds=seconds["feature"],
            seconds_before=clock.before,
        )


@dataclass(kw_only=True, slots=True)
class _Course:
    """A training with its reports, its best and its clock."""

    training: Training
    route: Route
    leg: Leg
    report: Report
    keeper: Keeper
    bar: Mapping[int, float] = field(default_factory=dict)  # val accuracy that is asked for, by step
    number: int = 0  # of the leg
    best: Best = field(default_factory=Best)
    clock: Clock = field(default_factory=Clock)
    curve: list[CurvePoint] = field(default_factory=list)
    resumed: int | None = None  # the step it was taken up at
    going: bool = True  # until the last step, or the loss has left the numbers

    def take_up(self) -> None:
        """Go on from a checkpoint where there is one; its curve is reported again, for whoever did not hear it."""
        if state := self.keeper.load():
            if number := state.get("leg", 0):
                self._turn_to(number)  # its values, momenta and rates are those that were saved
            self.training.resume(state["training"])
            self.resumed = self.training.step
            if best := state["best"]:
                self.best = Best(**best | {"scores": Scores(**best["scores"])})
            self.clock.resume(state["laps"])
            for point in state["curve"]:
                self._tell(CurvePoint(**point))

    def advance(self) -> None:
        """To the next report, or only to the end of the leg, or until the training is to be saved."""
        training, hparams = self.training, self.training.hparams
        if training.step == self.route.stops[self.number]:
            self._turn_to(self.number + 1)
        report = min((training.step // hparams.report_every + 1) * hparams.report_every, hparams.steps)
        stop = min(report, self.route.stops[self.number])
        training.advance(self.leg.train, stop, self.keeper.due)
        if training.step < stop:
            self._save()
        elif stop == report:
            self._report()

    def _report(self) -> None:
        training = self.training
        loss, step = training.mean_loss(), training.step
        self.clock.lap("train")
        scores = score(training.student, self.leg.val)
        self.best.offer(step, scores, training.student.trained.state_dict(), self.number)
        self.clock.lap("eval")
        self._tell(CurvePoint(step=step, train_loss=loss, val_loss=scores.loss, val_accuracy=scores.accuracy))
        self.going = math.isfinite(loss) and step < training.hparams.steps and self.pruned_step is None

    def _turn_to(self, number: int) -> None:
        self.clock.lap("train")
        self.number, self.leg = number, self.route.set_up(number)
        self.training.turn_to(self.leg.student)
        self.clock.lap("feature")

    def restored(self) -> Leg:
        """The leg of the best report, its student with the weights of that report."""
        leg = self.leg if self.best.leg == self.number else self.route.set_up(self.best.leg)
        leg.student.trained.load_state_dict(self.best.state)
        return leg

    @property
    def pruned_step(self) -> int | None:
        """The first step at which it lay below the bar."""
        return next((p.step for p in self.curve if p.val_accuracy < self.bar.get(p.step, 0.0)), None)

    def _tell(self, point: CurvePoint) -> None:
        self.curve.append(point)
        self.report(point)

    def _save(self) -> None:
        self.clock.lap("train")
        best = self.best.scores and {
            "step": self.best.step,
            "scores": asdict(self.best.scores),
            "state": self.best.state,
            "leg": self.best.leg,
        }
        curve = [asdict(point) for point in self.curve]
        self.keeper.save(
            {
                "training": self.training.state(),
                "leg": self.number,
                "best": best,
                "curve": curve,
                "laps": dict(self.clock.laps),
            }
        )
        self.clock.lap("save")


def fit(
    student: Student,
    train: Labelled,
    val: Labelled,
    hparams: HParams,
    *,
    seed: int,
    report: Report,
    keeper: Keeper | None = None,
    bar: Mapping[int, float] | None = None,
) -> Fit:
    """Train a student in one leg, as `fit_legs` does; it ends with the weights of its best report."""
    leg = Leg(student=student, train=train, val=val)
    route = Route(set_up=lambda _: leg, stops=(hparams.steps,))
    return fit_legs(route, hparams, seed=seed, report=report, keeper=keeper, bar=bar)[0]


def fit_legs(
    route: Route,
    hparams: HParams,
    *,
    seed: int,
    report: Report,
    keeper: Keeper | None = None,
    bar: Mapping[int, float] | None = None,
) -> tuple[Fit, Leg]:
    """Train for `hparams.steps` steps, report every `report_every`; the leg of the best report, with its weights.

    Batches, views, reports and drops of the rate go on over the legs as if there were one. A loss that is no longer
    finite, or a val accuracy below `bar` (by step), ends the training: what came before it still counts. StoppedError
    once `keeper` is told to stop; then and by its clock the training is saved, and one that was saved goes on bit for
    bit (on a CPU).
    """
    leg = route.set_up(0)
    training = Training.begin(leg.student, len(leg.train.labels), hparams, seed=seed)
    course = _Course(training=training, route=route, leg=leg, report=report, keeper=keeper or Keeper(), bar=bar or {})
    course.take_up()
    while course.going and training.step < hparams.steps:
        course.advance()
    curve = tuple(point.val_accuracy for point in course.curve)
    end = course.best.fit(training.step, course.clock)
    end = replace(end, curve=curve, pruned_step=course.pruned_step, resumed_step=course.resumed)
    return end, course.restored()


@torch.inference_mode()
def score(student: Student, data: Labelled) -> Scores:
    """Evaluate in eval mode on the centre view of each image."""
    student.eval()
    size = at_once(data.labels.device)
    pieces = [slice(start, start + size) for start in range(0, len(data.labels), size)]
    logits = torch.cat([data.logits(data.inputs.show(piece)) for piece in pieces]).float()
    return scores(logits.argmax(1), cross_entropy(logits, data.labels, reduction="none"), data.labels)


def scores(guesses: Tensor, losses: Tensor, labels: Tensor) -> Scores:
    """Of the classes guessed, int64 [N], and the cross-entropies [N] against labels int64 [N]."""
    right = (guesses == labels).double()
    total, hits = torch.bincount(labels), torch.bincount(labels, weights=right)
    present = total > 0
    return Scores(
        accuracy=right.mean().item(),
        mean_class_accuracy=(hits[present] / total[present]).mean().item(),
        loss=losses.mean().item(),
    )


def _rank(scores: Scores) -> tuple[float, float]:
    # What the order of sums does to a loss rarely chooses between steps that are alike, so.
    return scores.accuracy, -round(scores.loss, _DIGITS) if math.isfinite(scores.loss) else -math.inf

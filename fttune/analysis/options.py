"""What can be done with a network: freeze or tune, one new layer or a few; each with the effect that runs had."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from fttune.analysis.answer import Effect, Option
from fttune.analysis.cells import CONFIDENCE, effect
from fttune.analysis.evidence import FREEZE, TUNE, Body, Choice, Finding, findings
from fttune.analysis.recommend import Verdict
from fttune.layers import LayerSpec

_DEEPER = 3  # new layers of the choices that copy less


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The pairs that speak of these images: their own, or those of their box."""

    bodies: Sequence[Body]
    counts: Callable[[Finding], bool]
    own: bool  # of these very images, where val can choose

    def effect(self, above: Choice, below: Choice, confidence: float = CONFIDENCE) -> Effect:
        return effect(self._found(above, below), confidence)

    def val(self, above: Choice, below: Choice) -> float:
        """The mean difference of val accuracies."""
        return fmean(f.val_difference for f in self._found(above, below))

    def _found(self, above: Choice, below: Choice) -> list[Finding]:
        return [f for f in findings(self.bodies, above, below) if self.counts(f)]


def options_of(view: View, wide: View, depth: int, word: Verdict) -> tuple[Option, ...]:
    """Freezing and tuning with one new layer and with a few; the sweep holds the first two and the better third.

    Which of two is better the runs of `view` say, or else those of `wide`.
    """
    few = [(mode, min(_DEEPER, depth - 1)) for mode in ("freeze", "tune") if depth > 2]
    effects = {choice: None if choice == FREEZE else view.effect(choice, FREEZE) for choice in (FREEZE, TUNE, *few)}
    hopes = {choice: _hope(choice, (effects[choice], wide.effect(choice, FREEZE)), word) for choice in few}
    third = max(few, key=hopes.__getitem__, default=None)
    return tuple(
        Option(
            spec=str(_layers(choice, depth)),
            mode=choice[0],
            random_top=choice[1],
            depth=depth,
            tried=choice in (FREEZE, TUNE, third),
            effect=found,
        )
        for choice, found in effects.items()
    )


def _hope(choice: Choice, known: Sequence[Effect | None], word: Verdict) -> tuple[bool, float, bool]:
    """What is expected of a choice; one that was measured here stays, so that to verify again is to run nothing anew.

    Without runs, that it does best in the mode that is advised, or else tuned.
    """
    gains = [None if found is None else found.difference for found in known]
    gain = next((gain for gain in gains if gain is not None), 0.0)
    return gains[0] is not None, gain, choice[0] == ("freeze" if word is Verdict.FREEZE else "tune")


def _layers(choice: Choice, depth: int) -> LayerSpec:
    mode, new = choice
    copied = depth - new
    return LayerSpec(frozen=copied if mode == "freeze" else 0, tuned=copied if mode == "tune" else 0, random=new)


def best_of(view: View, options: Sequence[Option], word: Verdict) -> tuple[str, Effect | None]:
    """What to do: the word's mode with one new layer, or what did better than that with its whole interval.

    With the effect that the better one had over it. Where the two modes are not told apart the cheaper stands for both.
    On these very images val names the one choice that is held against the word on test. Elsewhere each is, and the
    intervals are as much wider as that takes for all to hold at once (Bonferroni).
    """
    plain = TUNE if word is Verdict.TUNE else FREEZE
    specs = {(option.mode, option.random_top): option.spec for option in options}
    rivals = [choice for choice in specs if choice not in (FREEZE, TUNE) and view.effect(choice, plain).pairs]
    if view.own and rivals:
        hopes = {choice: view.val(choice, plain) for choice in rivals}
        first = max(rivals, key=hopes.__getitem__)
        rivals = [first] if hopes[first] > 0 else []
    gains = {choice: view.effect(choice, plain, 1 - (1 - CONFIDENCE) / len(rivals)) for choice in rivals}
    better = {choice: found for choice, found in gains.items() if found.low is not None and found.low > 1}
    if not better:
        return specs[plain], None
    choice = max(better, key=lambda choice: better[choice].difference or 0.0)
    return specs[choice], better[choice]

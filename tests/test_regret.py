"""What the advice is worth: learned without the dataset that it is judged on, and never better than the oracle."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructed import make_run
from fttune.analysis.ratios import Pair
from fttune.analysis.recommend import Verdict
from fttune.analysis.regret import (
    BY_VAL,
    FREEZE,
    ORACLE,
    POLICIES,
    TABLE,
    TREND,
    TUNE,
    Loss,
    Regret,
    Split,
    families_of,
    regret,
)
from fttune.analysis.regret_sheet import headline, regret_sheet
from fttune.analysis.tables import PAPER

EDGES: dict[str, Any] = {"image_edges": (21.0, 100.0), "distance_edges": (0.2, 0.4)}


def make_pair(
    dataset: str, tuned: float, frozen: float, *, distance: float | None = 0.1, images: int = 5, seed: int = 0
) -> Pair:
    place = f"{dataset}/{images}/{seed}"
    return Pair(
        dataset=dataset, images_per_class=images, backbone="net", seed=seed, label="R 1", numerator=tuned,
        denominator=frozen, numerator_id=f"T {place}", denominator_id=f"F {place}", flagged="", distance=distance,
    )  # fmt: skip


def judge(pairs: list[Pair], val: dict[str, float] | None = None) -> Regret:
    same = {name: 0.5 for pair in pairs for name in (pair.numerator_id, pair.denominator_id)}
    return regret(pairs, same | (val or {}), **EDGES, confidence=0.95)


def losses(found: Regret) -> dict[str, Loss]:
    return {loss.policy: loss for loss in found.losses}


def test_regret_by_hand() -> None:
    """Three like datasets whose tuned side is better by 0.1 with three seeds, and one where it is worse by 0.2."""
    like = [make_pair(name, 0.6 + 0.001 * seed, 0.5, seed=seed) for name in "abc" for seed in range(3)]
    odd = [make_pair("odd", 0.3, 0.5, distance=0.1)]
    found = judge([*like, *odd])
    told = losses(found)
    assert tuple(told) == POLICIES
    assert (found.datasets, found.pairs, len(found.splits)) == (4, 10, 4)
    # Always tune loses 20 points on the odd one alone; always freeze 10.1 on each of the others (means over seeds).
    assert told[TUNE].points == pytest.approx(20 / 4)
    assert told[FREEZE].points == pytest.approx(3 * 10.1 / 4)
    assert told[TUNE].share == pytest.approx(100 * 0.2 / 0.5 / 4)
    assert told[ORACLE].points == 0
    # Val ties everywhere, so it gets the mean of both, as `Try Freeze or Tune` does.
    assert told[BY_VAL].points == pytest.approx((3 * 10.1 + 20) / 2 / 4)
    # Without the odd one the box says Tune, so the table loses 20 there; with it in, the others get Try.
    words = {split.dataset: split.words[TABLE] for split in found.splits}
    assert words == dict.fromkeys("abc", Verdict.BOTH) | {"odd": Verdict.TUNE}
    assert told[TABLE].points == pytest.approx((3 * 10.1 / 2 + 20) / 4)


def test_what_a_dataset_shows_has_no_say_in_the_advice_for_it() -> None:
    """The left-out dataset's own accuracies are turned round: what the policies say of it stays."""
    pairs = [make_pair(name, 0.6, 0.5 + 0.01 * n, images=images) for n, name in enumerate("abcd") for images in (5, 25)]
    turned = [replace(p, numerator=p.denominator, denominator=p.numerator) if p.dataset == "a" else p for p in pairs]
    here, there = ([learned(split) for split in judge(some).splits] for some in (pairs, turned))
    assert here[:2] == there[:2]
    assert here[2:] != there[2:]


def test_another_cut_of_the_same_images_has_no_say_either_and_both_are_one_dataset() -> None:
    pairs = [make_pair(name, 0.6, 0.5 + 0.01 * n) for n, name in enumerate(("other", "cub200"))]
    again = [make_pair("cub200_paper", 0.2, 0.5, seed=seed) for seed in range(3)]
    families = {"cub200": "CUB-200", "cub200_paper": "CUB-200"}
    same = {name: 0.5 for pair in [*pairs, *again] for name in (pair.numerator_id, pair.denominator_id)}
    alone, both = (regret(some, same, **EDGES, confidence=0.95, families=families) for some in (pairs, pairs + again))
    told = {split.dataset: learned(split) for split in both.splits}
    assert told["cub200"] == {split.dataset: learned(split) for split in alone.splits}["cub200"]
    assert (both.datasets, len(both.splits)) == (2, 3)
    assert losses(both)[TUNE].points == pytest.approx(30 / 2 / 2)
    assert regret([pairs[1], *again], same, **EDGES, confidence=0.95, families=families).losses == ()


def test_datasets_are_of_the_same_images_by_their_digest_or_by_name() -> None:
    runs = [make_run("tune", 0.5, dataset=name) for name in ("a", "b", "c", "cub200", "cub200_paper")]
    runs += [replace(runs[0], dataset="d"), replace(runs[1], dataset="d")]
    found = families_of(runs, PAPER)
    assert found["a"] == found["b"] == found["d"] != found["c"]
    assert found["cub200"] == found["cub200_paper"] == "CUB-200"


def learned(split: Split) -> tuple[str, Verdict, Verdict]:
    return split.dataset, split.words[TABLE], split.words[TREND]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from((5, 25)), st.integers(0, 1), st.floats(0.1, 1), st.floats(0.1, 1)
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[:3],
    )
)
def test_no_policy_beats_the_oracle_and_none_loses_more_than_there_is(
    rows: list[tuple[str, int, int, float, float]],
) -> None:
    pairs = [
        make_pair(
            name, tuned, frozen, images=images, seed=seed, distance={"a": 0.1, "b": 0.15, "c": 0.3, "d": 0.5}[name]
        )
        for name, images, seed, tuned, frozen in rows
    ]
    found = judge(pairs)
    if len({row[0] for row in rows}) < 2:
        assert found.losses == ()
        return
    told = losses(found)
    assert told[ORACLE].points == 0
    assert all(-1e-9 <= loss.points <= 100 for loss in found.losses)
    assert all(
        0 <= loss.low <= loss.high <= 100 for loss in found.losses if loss.low is not None and loss.high is not None
    )
    worst = max(told[TUNE].points + told[FREEZE].points, 0)
    assert all(loss.points <= worst + 1e-9 for loss in found.losses)


def test_an_empty_box_takes_the_published_word_and_says_so() -> None:
    pairs = [make_pair("near", 0.6, 0.5, distance=0.1), make_pair("far", 0.6, 0.5, distance=0.6, images=200)]
    found = judge(pairs)
    assert [(s.dataset, s.words[TABLE], s.published) for s in found.splits] == [
        ("far", Verdict.TUNE, True),
        ("near", Verdict.FREEZE, True),
    ]
    assert "The others left the box of 2 of 2 splits without evidence" in regret_sheet(found, confidence=0.95).notes[3]


def test_the_smooth_model_speaks_by_its_ratio() -> None:
    """Log-ratios that rise with distance through 0 at 0.3: frozen is better below, tuned above."""
    places = (0.1, 0.2, 0.25, 0.35, 0.4, 0.5)
    pairs = [make_pair(f"d{d}", 0.5 * math.exp(d - 0.3), 0.5, distance=d, images=n) for d in places for n in (5, 25)]
    found = judge(pairs)
    assert [split.words[TREND] for split in found.splits] == [Verdict.FREEZE] * 6 + [Verdict.TUNE] * 6
    assert losses(found)[TREND].points == pytest.approx(0)
    assert [split.supported for split in found.splits] == [False] * 2 + [True] * 8 + [False] * 2


def test_val_decides_by_its_mean_over_seeds_and_never_beats_the_oracle() -> None:
    pairs = [make_pair(name, 0.6, frozen, seed=seed) for name in "ab" for seed, frozen in enumerate((0.5, 0.65))]
    val = {"T a/5/0": 0.9, "F a/5/1": 0.8, "T b/5/0": 0.9, "F b/5/1": 0.95}
    found = judge(pairs, val)
    assert [split.words[BY_VAL] for split in found.splits] == [Verdict.TUNE, Verdict.FREEZE]
    assert losses(found)[BY_VAL].points == pytest.approx((0 + 2.5) / 2)


def test_flagged_pairs_are_judged_though_they_are_no_evidence() -> None:
    good = [make_pair(name, 0.6, 0.5) for name in "ab"]
    flagged = replace(make_pair("c", 0.9, 0.1), flagged="denominator near chance")
    found = judge([*good, flagged])
    assert losses(found)[FREEZE].points == pytest.approx((10 + 10 + 80) / 3)


def test_a_dataset_without_a_distance_is_not_judged_and_named() -> None:
    found = judge([make_pair("a", 0.6, 0.5), make_pair("b", 0.6, 0.5), make_pair("c", 0.1, 0.9, distance=None)])
    assert (found.datasets, found.left_out) == (2, ("c",))
    assert regret_sheet(found, confidence=0.95).notes[-1] == "Without a distance, so not judged: c."


@pytest.mark.parametrize("pairs", [[], [make_pair("a", 0.6, 0.5)], [make_pair("a", 0.6, 0.5, seed=s) for s in (0, 1)]])
def test_fewer_than_two_datasets_give_words_and_no_number(pairs: list[Pair]) -> None:
    found = judge(pairs)
    sheet = regret_sheet(found, confidence=0.95)
    assert (found.losses, sheet.rows) == ((), ())
    assert sheet.notes[0] == headline(found)
    assert headline(found).endswith("needs two datasets with a distance.")
    assert not any(character.isdigit() for character in " ".join(sheet.notes))


def test_the_headline_states_the_losses_and_what_they_rest_on() -> None:
    found = judge([make_pair(name, 0.6, 0.5 - 0.01 * number) for number, name in enumerate("abc")])
    told = headline(found)
    assert told.startswith(
        "Regret, points of test accuracy lost on a dataset left out (n = 3 datasets, 3 pairs): table "
    )
    assert "always tune 0; always freeze 11; " in told
    assert "oracle" not in told

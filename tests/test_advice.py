"""An answer is what the runs at hand say where they speak of such images, and an honest doubt where they do not."""

import json
from dataclasses import replace

import pytest

from constructed import make_distance, make_pairs_of_runs, make_run
from fttune.analysis.advice import advise
from fttune.analysis.answer import Answer, Images
from fttune.analysis.evidence import Body, findings
from fttune.analysis.published import nearest, published_runs, published_verdict, tables
from fttune.analysis.recommend import DISTANCE_EDGES, IMAGE_EDGES, Verdict, band
from fttune.record import DistanceRecord, RunRecord
from fttune.trial import digest

IMAGES = Images(
    dataset="mine",
    classes=10,
    images=400,
    smallest=20,
    quarter=20,
    median=20,
    largest=20,
    smallest_class="c",
    val=5,
    test=5,
    fits=10,
)

# Each set of the paper at each of its splits: the box, and the word of its Table 3.
BOXES = {
    "Yosinski": "L: L Freeze, L Freeze, M Try Freeze or Tune, M Try Freeze or Tune, H Tune",
    "Caltech256": "L: L Freeze, L Freeze, M Try Freeze or Tune, M Try Freeze or Tune",
    "SUN397": "L: L Freeze, L Freeze, M Try Freeze or Tune, M Try Freeze or Tune",
    "MITIndoor": "M: L Try Freeze or Tune, L Try Freeze or Tune, M Tune, M Tune",
    "CUB-200": "M: L Try Freeze or Tune, L Try Freeze or Tune, M Tune",
    "Coral": "H: L Try Freeze or Tune, M Tune, H Tune, H Tune",
    "Plankton": "H: L Try Freeze or Tune, L Try Freeze or Tune, H Tune, H Tune",
}


def body(runs: list[RunRecord], distances: dict[str, float], name: str = "shipped runs") -> Body:
    return Body.of(name, runs, [make_distance(dataset, value) for dataset, value in distances.items()])


def similar(effect: float, names: str = "abc", images: int = 10) -> Body:
    """Runs on some sets around a distance of 0.1, all with one effect of tuning."""
    runs = [run for name in names for run in make_pairs_of_runs(name, images, effect)]
    return body(runs, {name: 0.09 + 0.01 * number for number, name in enumerate(names)})


def ask(*bodies: Body, distance: float = 0.1, spread: float = 0.001, images: Images = IMAGES) -> Answer:
    return advise(images, make_distance("mine", distance, spread=spread), bodies, depth=8)


@pytest.mark.parametrize("name", sorted(BOXES))
def test_the_published_table_says_its_word_of_each_of_its_own_sets(name: str) -> None:
    (cosine,) = [row["cosine"] for row in tables()["table2"] if row["dataset"] == name]
    (splits,) = [row["train"] for row in tables()["table1"] if row["dataset"] == name]
    row = band(cosine, DISTANCE_EDGES)
    columns = [band(images, IMAGE_EDGES) for images in splits]
    assert f"{row}: {', '.join(f'{column} {published_verdict(row, column)}' for column in columns)}" == BOXES[name]
    assert nearest(cosine) == (name, cosine)
    answers = [ask(distance=cosine, images=replace(IMAGES, asked=images)) for images in splits]
    assert [answer.places[0].published for answer in answers] == [published_verdict(row, column) for column in columns]


def test_the_paper_s_own_runs_leave_one_box_empty() -> None:
    assert [[published_runs(row, column) for column in "LMH"] for row in "LMH"] == [[6, 6, 1], [4, 3, 0], [3, 1, 4]]


@pytest.mark.parametrize(("effect", "word", "spec"), [(1.2, Verdict.TUNE, "T(1-7)R(8)"), (0.8, "Freeze", "F(1-7)R(8)")])
def test_where_runs_on_like_sets_agree_their_word_is_the_answer(effect: float, word: str, spec: str) -> None:
    answer = ask(similar(effect))
    assert (answer.verdict, answer.spec, answer.doubts) == (word, spec, ())
    (place,) = answer.places
    assert (place.distance, place.images, place.effect.pairs, place.sources) == ("L", "L", 9, {"shipped runs": 9})
    assert place.effect.ratio == pytest.approx(effect, rel=0.02)
    assert place.effect.difference == pytest.approx(0.6 * (effect - 1), abs=0.01)
    assert place.differs == (word == "Tune")
    said = "say 'Freeze' here; these runs disagree" if word == "Tune" else "say 'Freeze' here too"
    assert said in " ".join(str(answer).split())


def test_an_open_word_contradicts_nobody() -> None:
    assert "say 'Freeze' here; these runs leave it open" in " ".join(str(ask(similar(1.0))).split())
    known = ask(similar(1.2, images=50), images=replace(IMAGES, asked=50))
    assert "say 'Try Freeze or Tune' here; these runs say more" in " ".join(str(known).split())


def test_the_smooth_model_speaks_beside_the_box_and_says_where_it_is_not_to_be_followed() -> None:
    inside = ask(similar(1.2, names="abcde"), distance=0.11)
    assert inside.expected.ratio == pytest.approx(1.2, rel=0.02)
    assert inside.expected.supported
    assert "not to be followed" not in str(inside)
    outside = ask(similar(1.2, names="abcde"), distance=0.5)
    assert not outside.expected.supported
    assert "but it is not to be followed: distance 0.500 is outside" in " ".join(str(outside).split())


def test_the_nearest_cells_name_their_runs() -> None:
    answer = ask(similar(1.2), similar(1.1, images=200))
    assert sorted((cell.dataset, cell.images_per_class) for cell in answer.near) == [("a", 10), ("b", 10), ("c", 10)]
    assert answer.near[0].dataset == "b"
    ids = {run.trial_id for run in make_pairs_of_runs("b", 10, 1.2)}
    assert {*answer.near[0].tuned, *answer.near[0].frozen} == ids
    assert all(trial in str(answer) for trial in ids)
    place, near = answer.places[0].effect, answer.near[0].effect
    assert f"tuned took {place.given}" in " ".join(str(answer).split()), "what each side was given is told"
    assert (place.given.trials, near.given.trials, near.other_given.trials) == (place.pairs, 3, 3)
    assert f"({near.other_given})" in str(answer)


@pytest.mark.parametrize(
    ("bodies", "change", "says"),
    [
        ([], {}, "there is no run to go by"),
        ([similar(1.2)], {"distance": 0.19}, "a distance of 0.190 lies beyond those that runs were made at"),
        ([similar(1.2, names="a")], {}, "rests on one set alone (a)"),
        ([similar(1.2)], {"images": replace(IMAGES, asked=3)}, "3 images per class are fewer than any run had (10 to"),
        ([similar(1.2)], {"images": replace(IMAGES, asked=15)}, "15 images per class are more than any run had (10"),
        ([similar(1.2, images=50)], {}, "no run lies in the box of distance L and images L"),
    ],
)
def test_off_the_support_it_says_so_and_recommends_to_try_both(
    bodies: list[Body], change: dict[str, object], says: str
) -> None:
    answer = ask(*bodies, **change)  # pyright: ignore[reportArgumentType]
    assert (answer.verdict, answer.spec) == (Verdict.BOTH, None)
    assert any(says in doubt for doubt in answer.doubts), answer.doubts
    assert says in " ".join(str(answer).split())


def test_a_gap_between_measured_sets_is_off_the_support_too() -> None:
    far = body(make_pairs_of_runs("z", 10, 1.2), {"z": 0.45})
    doubts = ask(similar(1.2), far, distance=0.3).doubts
    assert "no set with runs lies within 0.1 of this distance; the nearest is z at 0.450" in doubts


def test_runs_of_another_network_are_shown_and_not_followed() -> None:
    runs = [replace(run, weights_digest="v", backbone="other") for run in make_pairs_of_runs("a", 10, 1.2)]
    far = [replace(make_distance("a", 0.1), weights_digest="v")]
    answer = ask(Body.of("shipped runs", runs, far))
    assert answer.verdict is Verdict.BOTH
    assert answer.doubts[0] == "no run is of net; those shown are of other, as are their distances"
    assert answer.near[0].backbone == "other"
    both = ask(Body.of("shipped runs", runs, far), similar(0.8))
    assert {cell.backbone for cell in both.near} == {"net"}
    assert both.verdict is Verdict.FREEZE


def on_both_sides(effect: float) -> Body:
    runs = [
        run
        for name, factor in (("a", 1.2), ("b", 1.2), ("c", effect), ("d", effect))
        for run in make_pairs_of_runs(name, 10, factor)
    ]
    return body(runs, {"a": 0.19, "b": 0.195, "c": 0.205, "d": 0.21})


@pytest.mark.parametrize(("effect", "word"), [(1.2, Verdict.TUNE), (0.8, Verdict.BOTH)])
def test_an_interval_over_a_band_edge_shows_both_boxes_and_follows_them_only_where_they_agree(
    effect: float, word: Verdict
) -> None:
    answer = ask(on_both_sides(effect), distance=0.198, spread=0.004)
    assert [place.distance for place in answer.places] == ["L", "M"]
    assert answer.verdict is word
    assert any("0.194 to 0.202, reaches over a band edge" in remark for remark in answer.remarks)


def test_an_interval_over_a_whole_band_shows_all_three() -> None:
    assert [place.distance for place in ask(distance=0.19, spread=0.25).places] == ["L", "M", "H"]


def test_a_median_class_in_another_band_than_the_smallest_shows_both_boxes() -> None:
    answer = ask(similar(1.2), images=replace(IMAGES, quarter=40, median=60, largest=300))
    assert any("--option min_per_class=40 leaves out the classes with fewer than 40" in r for r in answer.remarks)
    assert [place.images for place in answer.places] == ["L", "M"]
    assert answer.verdict is Verdict.TUNE
    assert any("by the smallest class there are 10 to train on, by the median class 50" in r for r in answer.remarks)
    assert "20 to 300 in a class, median 60: very uneven, the largest has 15.0 times the smallest" in str(answer)


def test_runs_on_these_very_images_are_the_answer_and_no_part_of_the_table() -> None:
    mine = body(make_pairs_of_runs("mine", 10, 0.8), {"mine": 0.1}, "your runs (fttune)")
    answer = ask(similar(1.2), mine)
    assert (answer.verdict, answer.spec, answer.doubts) == (Verdict.FREEZE, "F(1-7)R(8)", ())
    assert answer.own
    assert answer.own.source == "your runs (fttune)"
    assert answer.places[0].verdict is Verdict.TUNE
    assert answer.places[0].effect.datasets == ("a", "b", "c")
    assert answer.options[1].effect == answer.own.effect
    elsewhere = ask(similar(1.2), mine, images=replace(IMAGES, asked=7))
    assert elsewhere.own is None


def test_one_seed_on_these_images_is_shown_and_decides_nothing() -> None:
    answer = ask(similar(0.8), body(make_pairs_of_runs("mine", 10, 1.5, seeds=1), {"mine": 0.1}))
    assert answer.own
    assert (answer.verdict, answer.measured) == (Verdict.FREEZE, False)
    assert "one seed on these very images decides nothing" in answer.remarks


def test_runs_on_these_images_near_chance_decide_nothing_and_are_told() -> None:
    mine = [make_run(mode, 0.12, dataset="mine", images_per_class=10) for mode in ("tune", "freeze")]
    answer = ask(similar(1.2), body(mine, {"mine": 0.1}))
    assert (answer.verdict, answer.own) == (Verdict.TUNE, None)
    assert "runs on these very images came out near chance, so they decide nothing" in answer.remarks


MINE = make_pairs_of_runs("mine", 10, 0.8)
STRAY = {
    "a trial of a search": [make_run("tune", 0.9, dataset="mine", images_per_class=10, seed=-1)],
    "a fold of a search": [make_run("freeze", 0.9, dataset="mine", images_per_class=10, seed=-1, fold=(0, 2))],
    "another setting of one side": [
        make_run("tune", 0.5, dataset="mine", images_per_class=10, lr=0.3, seed=seed) for seed in range(3)
    ],
}


@pytest.mark.parametrize("name", STRAY)
def test_a_stray_trial_on_these_images_never_lets_the_table_speak_over_them(name: str) -> None:
    """They stay the answer, or it is said that they make no fair pair and nothing is advised."""
    answer = ask(similar(1.2), body([*MINE, *STRAY[name]], {"mine": 0.1}))
    if name != "another setting of one side":
        assert (answer.verdict, answer.measured, answer.doubts) == (Verdict.FREEZE, True, ())
        return
    assert (answer.verdict, answer.spec, answer.measured) == (Verdict.BOTH, None, False)
    assert answer.doubts == (
        "runs on these very images that make no fair pair are left out: mine/10 T(1-7)R(8) s0: unequal budgets, 2 and 1"
        " settings tried, and 2 more",
    )


def test_runs_beside_measured_ones_that_make_no_fair_pair_are_told_and_one_side_alone_is_no_contest() -> None:
    lone = make_run("tune", 0.9, dataset="mine", images_per_class=10, seed=9)
    answer = ask(similar(1.2), body([*MINE, lone], {"mine": 0.1}))
    assert (answer.verdict, answer.measured) == (Verdict.FREEZE, True)
    assert any("no fair pair are left out: mine/10 T(1-7)R(8) s9: no finished run" in said for said in answer.remarks)
    assert ask(similar(1.2), body([lone], {"mine": 0.1})).verdict is Verdict.TUNE


def test_runs_of_the_same_images_under_other_settings_are_a_cell_of_their_own() -> None:
    """Of many steps freezing comes out better, of few tuning; three seeds each are no six."""
    few, many = (
        [replace(run, steps=steps, trial_id=f"{run.trial_id}{steps}") for run in make_pairs_of_runs("mine", 10, ratio)]
        for ratio, steps in ((1.2, 200), (0.8, 2000))
    )
    answer = ask(similar(1.2), body([*few[2:], *many], {"mine": 0.1}))
    assert answer.own
    assert (answer.verdict, len(answer.own.tuned)) == (Verdict.FREEZE, 3)
    assert answer.own.effect.ratio == pytest.approx(0.8, rel=0.02)
    assert answer.options[1].effect == answer.own.effect
    (told,) = [said for said in answer.remarks if "under other settings are not counted in: 1." in said]
    assert told.count("[") == 2
    near = advise(IMAGES, make_distance("other", 0.1), [body([*few, *many], {"mine": 0.1})], depth=8).near
    assert sorted(len(cell.tuned) for cell in near) == [3, 3]


def test_runs_of_two_stores_are_paired_within_each_and_counted_once() -> None:
    """A second setting in one store would make its budgets unequal to the other's."""
    searched = [
        run
        for lr in (0.1, 0.2)
        for mode, accuracy in (("tune", 0.6), ("freeze", 0.5))
        for run in [make_run(mode, accuracy, dataset="a", images_per_class=10, lr=lr, seed=0)]
    ]
    lone = make_run("tune", 0.7, dataset="a", images_per_class=10, lr=0.3, seed=0)
    ours, yours = body(searched, {"a": 0.1}), body(searched, {"a": 0.1}, "yours")
    assert len(findings([body([*searched, lone], {"a": 0.1})])) == 0
    assert [found.source for found in findings([ours, body([lone], {}, "yours")])] == ["shipped runs"]
    assert [found.source for found in findings([ours, yours])] == ["shipped runs"]


def with_depths(few: float, *, tuned: float = 0.6, frozen: float = 0.4) -> Body:
    """Three sets; tuned with three new layers gives `few` times that with one, frozen 0.5 with one and `frozen`."""
    runs = [
        run
        for name in "abc"
        for seed in (0, 1, 2)
        for mode, top, accuracy in (
            ("freeze", 1, 0.5),
            ("tune", 1, tuned),
            ("freeze", 3, frozen),
            ("tune", 3, tuned * few),
        )
        for run in [
            make_run(mode, accuracy + seed / 1000, random_top=top, dataset=name, images_per_class=10, seed=seed)
        ]
    ]
    return body(runs, {"a": 0.09, "b": 0.1, "c": 0.11})


@pytest.mark.parametrize(("few", "spec"), [(1.1, "T(1-5)R(6-8)"), (0.9, "T(1-7)R(8)")])
def test_how_much_to_copy_follows_from_the_runs_too(few: float, spec: str) -> None:
    answer = ask(with_depths(few))
    assert (answer.verdict, answer.spec) == (Verdict.TUNE, spec)
    gains = {option.spec: option.effect and option.effect.difference for option in answer.options}
    assert gains == {
        "F(1-7)R(8)": None,
        "T(1-7)R(8)": pytest.approx(0.1),
        "F(1-5)R(6-8)": pytest.approx(-0.1),
        "T(1-5)R(6-8)": pytest.approx(0.6 * few - 0.5),
    }
    assert [option.spec for option in answer.options if option.tried] == ["F(1-7)R(8)", "T(1-7)R(8)", "T(1-5)R(6-8)"]
    assert ("Better still is T(1-5)R(6-8) (tune 5 copied layers, 3 new): +6.0 points" in str(answer)) == (few > 1)


@pytest.mark.parametrize("tuned", [0.6, 0.5])
def test_what_did_better_than_the_word_with_one_new_layer_is_what_to_do_whatever_its_mode(tuned: float) -> None:
    answer = ask(with_depths(0.9, tuned=tuned, frozen=0.7))
    assert answer.verdict is (Verdict.TUNE if tuned > 0.5 else Verdict.BOTH)
    assert answer.spec == "F(1-5)R(6-8)"
    assert answer.gain
    assert answer.gain.difference == pytest.approx(0.7 - tuned)
    assert [option.spec for option in answer.options if option.tried][2] == "F(1-5)R(6-8)"


@pytest.mark.parametrize(("effect", "third"), [(1.2, "T(1-5)R(6-8)"), (0.8, "F(1-5)R(6-8)")])
def test_without_runs_on_depth_the_third_candidate_is_of_the_mode_that_is_advised(effect: float, third: str) -> None:
    tried = [option.spec for option in ask(similar(effect)).options if option.tried]
    assert tried == ["F(1-7)R(8)", "T(1-7)R(8)", third]


def test_where_the_box_is_empty_runs_elsewhere_choose_the_third_candidate() -> None:
    answer = ask(with_depths(0.9, frozen=0.7), distance=0.3)
    assert answer.spec is None
    assert [option.spec for option in answer.options if option.tried][2] == "F(1-5)R(6-8)"


def test_a_candidate_that_was_measured_on_these_images_stays_one() -> None:
    runs = [
        make_run(mode, accuracy + seed / 1000, random_top=top, dataset="mine", images_per_class=10, seed=seed)
        for seed in (0, 1, 2)
        for mode, top, accuracy in (("freeze", 1, 0.6), ("tune", 1, 0.5), ("tune", 3, 0.4))
    ]
    answer = ask(with_depths(0.9, frozen=0.7), body(runs, {"mine": 0.1}, "yours"))
    assert answer.measured
    assert [option.spec for option in answer.options if option.tried][2] == "T(1-5)R(6-8)"


def test_a_network_of_two_layers_has_two_choices() -> None:
    answer = advise(IMAGES, make_distance("mine", 0.1), [], depth=2)
    assert [option.spec for option in answer.options] == ["F(1)R(2)", "T(1)R(2)"]


def test_the_document_is_json_with_stable_keys_and_the_text_fits_a_terminal() -> None:
    answer = ask(with_depths(1.1))
    told = json.loads(json.dumps(answer.document))
    assert list(told) == [
        "images", "distance", "verdict", "spec", "gain", "why", "doubts", "remarks", "own", "measured", "places",
        "expected", "near", "options", "trying",
    ]  # fmt: skip
    assert told["verdict"] == "Tune"
    assert told["images"]["per_class"] == 10
    assert told["places"][0]["effect"]["pairs"] == 9
    assert max(map(len, str(answer).splitlines())) <= 120


def test_the_place_of_a_measurement_is_told_with_its_n_and_size() -> None:
    record: DistanceRecord = make_distance("mine", 0.1)
    said = " ".join(str(advise(IMAGES, record, [], depth=8)).split())
    assert "0.100 [0.099, 0.101] from imagenet: band L (0-0.2). Cosine, net at 32 px, n = 100 images and 1,000" in said


def of_depths(name: str, **choices: tuple[float, float]) -> list[RunRecord]:
    """Three seeds of choices named like `freeze_3`, each with its accuracies on val and on test."""
    return [
        make_run(mode, test + seed / 1000, val=val, random_top=int(top), dataset=name, images_per_class=10, seed=seed)
        for choice, (val, test) in choices.items()
        for mode, top in [choice.split("_")]
        for seed in (0, 1, 2)
    ]


def test_on_these_images_val_chooses_and_test_only_confirms() -> None:
    """The test set would choose three new layers each time, val does so in the second case alone."""
    plain = {"freeze_1": (0.8, 0.5), "tune_1": (0.7, 0.4)}
    against = ask(body(of_depths("mine", **plain, freeze_3=(0.6, 0.7)), {"mine": 0.1}))
    assert (against.measured, against.spec, against.gain) == (True, "F(1-7)R(8)", None)
    agreed = ask(body(of_depths("mine", **plain, freeze_3=(0.85, 0.7), tune_3=(0.82, 0.9)), {"mine": 0.1}))
    assert agreed.spec == "F(1-5)R(6-8)"
    assert agreed.gain
    assert agreed.gain.difference == pytest.approx(0.2)
    assert "Val chose it, test confirms it." in " ".join(str(agreed).split())


def test_the_more_choices_are_held_against_the_word_the_wider_their_intervals() -> None:
    """Alone the choice is just better by 95 %; as one of two it is not."""
    gains = {"a": 0.04, "b": 0.06, "c": 0.08}

    def answer(*, second: bool) -> Answer:
        other = {"tune_3": (0.5, 0.3)} if second else {}
        runs = [
            run
            for name, gain in gains.items()
            for run in of_depths(name, freeze_1=(0.6, 0.6), tune_1=(0.5, 0.5), freeze_3=(0.6, 0.6 + gain), **other)
        ]
        return ask(body(runs, {"a": 0.09, "b": 0.1, "c": 0.11}))

    assert answer(second=False).spec == "F(1-5)R(6-8)"
    assert "The interval allows for all choices that were tried." in " ".join(str(answer(second=False)).split())
    assert (answer(second=True).spec, answer(second=True).gain) == ("F(1-7)R(8)", None)


def test_other_images_of_the_same_name_are_another_set_and_the_same_under_two_names_one() -> None:
    def named(name: str, images: str) -> Body:
        pairs = make_pairs_of_runs(images, 10, 1.2)
        runs = [replace(run, dataset=name, trial_id=digest([run.trial_id, name])) for run in pairs]
        return Body.of(images, runs, [replace(make_distance(images, 0.1), dataset=name)])

    unlike = ask(named("photos", "x"), named("photos", "y"))
    assert unlike.places[0].effect.datasets == tuple(sorted(f"photos ({digest(name)[:6]})" for name in "xy"))
    assert [len(cell.tuned) for cell in unlike.near] == [3, 3]
    alike = ask(named("photos", "x"), named("photos", "x"), named("pictures", "x"))
    assert (alike.places[0].effect.datasets, alike.places[0].effect.pairs) == (("photos",), 6)
    assert "rests on one set alone (photos)" in " ".join(alike.doubts)


def at_size(built: Body, size: int) -> Body:
    """The same results and distances at another size of the input."""
    places = {place: (*place[:2], size, place[3]) for place in {result.place for result in built.results}}
    return replace(
        built,
        results=tuple(
            replace(r, place=places[r.place], trial_id=digest([r.trial_id, size]), shared=digest([r.shared, size]))
            for r in built.results
        ),
        distances={places[place]: value for place, value in built.distances.items()},
    )


def test_runs_at_another_input_size_are_shown_and_not_followed() -> None:
    other = at_size(similar(1.2), 64)
    answer = ask(other)
    assert (answer.verdict, answer.spec) == (Verdict.BOTH, None)
    assert "no run had inputs of 32 px (crop); those shown, and their distances, are at 64 px (crop)" in answer.doubts
    assert answer.places[0].effect.pairs == 9
    both = ask(other, similar(0.8))
    assert (both.verdict, both.doubts, both.places[0].effect.pairs) == (Verdict.FREEZE, (), 9)
    assert {cell.image_size for cell in both.near} == {32}


def test_runs_on_these_images_at_another_input_size_are_told() -> None:
    mine = body(make_pairs_of_runs("mine", 10, 0.8), {"mine": 0.1})
    answer = ask(at_size(mine, 64))
    assert (answer.verdict, answer.measured) == (Verdict.FREEZE, True)
    assert "the runs on these very images had inputs of 64 px (crop), not of 32 px (crop)" in answer.remarks
    assert not any("very images had inputs" in remark for remark in ask(mine).remarks)

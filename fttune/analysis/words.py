"""An answer in plain words, for a terminal of a hundred columns."""

from collections.abc import Iterator

from fttune.analysis.answer import Answer, Effect, Images, Near, Option, Place, Trying
from fttune.analysis.phrases import counted, duration, points, ratio, sentence, told, wrapped
from fttune.analysis.published import nearest
from fttune.analysis.recommend import DISTANCE_EDGES, IMAGE_EDGES, Verdict, band, spans
from fttune.analysis.trend import Expected

_PAPER = "Chu et al. 2016"


def lines(answer: Answer) -> list[str]:
    """Every part, a heading each; parts without anything to say are left out."""
    parts = [
        _images(answer),
        _answer(answer),
        _own(answer),
        ["The table, from runs on other images (test accuracy tuned / frozen, one new layer)", *_table(answer)],
        ["Nearest measured cells", *(line for cell in answer.near for line in _cell(cell))] if answer.near else [],
        _options(answer),
        _published(answer),
        _trying(answer.trying) if answer.trying else [],
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def _images(answer: Answer) -> list[str]:
    images, distance = answer.images, answer.distance
    test = "its official test set" if images.test is None else f"{images.test} to test on"
    which = "As asked" if images.asked else f"The smallest class, {images.smallest_class}, leaves so many"
    many = f"{images.per_class} of each class to train on: {_span(answer.places[0].images, IMAGE_EDGES, whole=True)}."
    far = f"{distance.value:.3f} [{distance.low:.3f}, {distance.high:.3f}] from {distance.source}"
    how = f"Cosine, {distance.backbone} at {distance.image_size} px"
    counts = f"n = {distance.images:,} images and {distance.source_images:,} of the source"
    return [
        f"{images.dataset}: {images.classes} classes, {images.images:,} images; {_sizes(images)}",
        *wrapped(f"{many} {which}, beside {images.val} for val and {test}.", "  images    "),
        *wrapped(
            f"{far}: {_span(answer.places[0].distance, DISTANCE_EDGES, whole=False)}. {how}, {counts}.", "  distance  "
        ),
    ]


def _sizes(images: Images) -> str:
    """Least, middle and most, and what they mean."""
    if images.smallest == images.largest:
        return f"{images.smallest} in each class"
    counts = f"{images.smallest} to {images.largest} in a class, median {images.median:g}"
    times = images.largest / images.smallest
    if times < 1.5:
        return f"{counts}: even"
    uneven = "uneven" if times < 10 else "very uneven"
    return f"{counts}: {uneven}, the largest has {times:.1f} times the smallest"


def _span(name: str, edges: tuple[float, float], *, whole: bool) -> str:
    return f"band {name} ({dict(spans(edges, whole=whole))[name]})"


def _answer(answer: Answer) -> list[str]:
    what = f"{'; better still' if answer.gain else ':'} {answer.spec}" if answer.spec else ""
    return [
        f"Answer: {answer.verdict}{what}",
        *wrapped(sentence(answer.why)),
        *wrapped("" if answer.doubts else _expected(*answer.options[:2])),
        *wrapped(_better(answer)),
        *(line for doubt in answer.doubts for line in wrapped(doubt, "  - ")),
        *(line for remark in answer.remarks for line in wrapped(remark, "  note: ")),
    ]


def _better(answer: Answer) -> str:
    """What did better than the word with one new layer; empty where nothing did."""
    if answer.gain is None:
        return ""
    better = next(option for option in answer.options if option.spec == answer.spec)
    plain = answer.options[1 if answer.verdict is Verdict.TUNE else 0]
    cost = f", in {_time(better)} a training" if better.seconds else ""
    gain = f"Better still is {better.spec} ({_does(better)}): {points(answer.gain)} over {plain.spec}{cost}"
    chosen = (
        "Val chose it, test confirms it" if answer.measured else "The interval allows for all choices that were tried"
    )
    return f"{gain}. {chosen}."


def _expected(frozen: Option, tuned: Option) -> str:
    """What tuning is expected to gain and to cost; empty where no run says."""
    if tuned.effect is None or tuned.effect.difference is None:
        return ""
    gain = f"Tuning over freezing, one new layer: {points(tuned.effect)} of test accuracy"
    return (
        f"{gain}; a training takes {_time(tuned)} here, a frozen one {_time(frozen)}." if tuned.seconds else f"{gain}."
    )


def _own(answer: Answer) -> list[str]:
    if answer.own is None:
        return []
    return ["Measured on these images (tuned / frozen, one new layer)", *_cell(answer.own)]


def _table(answer: Answer) -> Iterator[str]:
    for place in answer.places:
        star = "*" if place.thin else ""
        sources = ", ".join(f"{n} of {name}" for name, n in place.sources.items())
        yield f"  {_box(place)}   {place.verdict}{star}   {told(place.effect)}".rstrip()
        of = f" ({sources})" if sources else ""
        yield from wrapped(f"{_sets(place.effect)}{of}{_took(place.effect)}; {_beside(place)}", "      ")
    if any(place.thin for place in answer.places):
        yield "  * one set alone"
    if answer.expected.ratio is not None:
        yield from wrapped(_smooth(answer.expected))


def _smooth(expected: Expected) -> str:
    """What the model over all boxes expects at this very place."""
    assert expected.ratio is not None
    found = f"A smooth model of all these runs, over distance and images, expects {ratio(expected)} here"
    return f"{found}." if expected.supported else f"{found}, but it is not to be followed: {expected.why}."


def _box(place: Place) -> str:
    return f"distance {place.distance}, images {place.images}"


def _sets(effect: Effect) -> str:
    if not effect.pairs:
        return "no pair of runs" + (f", {effect.flagged} near chance left out" if effect.flagged else "")
    flagged = f", {effect.flagged} more near chance left out" if effect.flagged else ""
    return f"{counted(effect.pairs, 'pair')} of runs on {', '.join(effect.datasets)}{flagged}"


def _took(effect: Effect) -> str:
    return f"; tuned took {effect.given}, frozen {effect.other_given}" if effect.pairs else ""


def _beside(place: Place) -> str:
    """The published word for a box, and how it goes with that of the runs."""
    word = f"{_PAPER} say '{place.published}' here"
    if not place.published_runs:
        return f"{word}, though no run of theirs lies in this box"
    return f"{word}{_against(place.verdict, place.published)}"


def _against(ours: Verdict, theirs: Verdict) -> str:
    """An open word contradicts nobody."""
    if ours is Verdict.NONE:
        return ""
    if ours is theirs:
        return " too"
    if Verdict.BOTH in (ours, theirs):
        return "; these runs leave it open" if ours is Verdict.BOTH else "; these runs say more"
    return "; these runs disagree"


def _cell(cell: Near) -> Iterator[str]:
    away = "" if cell.distance is None else f"distance {cell.distance:.3f}, "
    yield (
        f"  {cell.dataset}/{cell.images_per_class}   {away}{cell.backbone} at {cell.image_size} px,"
        f" {counted(len(cell.tuned), 'seed')}, {cell.source}"
    )
    yield f"      {told(cell.effect)}"
    yield from wrapped(f"tuned {' '.join(cell.tuned)} ({cell.effect.given})", "      ")
    yield from wrapped(f"frozen {' '.join(cell.frozen)} ({cell.effect.other_given})", "      ")


def _options(answer: Answer) -> list[str]:
    base = answer.options[0].spec
    head = ("Choices", "", f"accuracy against {base}", "one training here")
    rows = [(f"  {option.spec}", _does(option), _gain(option), _time(option)) for option in answer.options]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    where = "on these images" if answer.measured else "in the first box above"
    froms = " and ".join(sorted({option.seconds_from for option in answer.options} - {""}))
    measured = any(option.effect and option.effect.pairs for option in answer.options)
    notes = [f"differences are of runs {where}"] * measured + [f"seconds are from {froms}"] * bool(froms)
    return [
        *("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)),
        *([f"  {'; '.join(notes)}"] if notes else []),
    ]


def _does(option: Option) -> str:
    """`tune 9 copied layers, 1 new`."""
    copied = option.depth - option.random_top
    return f"{option.mode} {copied} copied layers, {option.random_top} new"


def _gain(option: Option) -> str:
    if option.effect is None:
        return "-"
    return f"{points(option.effect)}, n = {option.effect.pairs}" if option.effect.pairs else "not measured"


def _time(option: Option) -> str:
    return "not known" if option.seconds is None else duration(option.seconds)


def _published(answer: Answer) -> list[str]:
    place, distance = answer.places[0], answer.distance
    name, near = nearest(distance.value)
    return [
        f"The published table ({_PAPER}, Table 3)",
        *wrapped(
            f"'{place.published}' for distance {place.distance} and images {place.images}.{_disagreement(answer)}"
        ),
        *wrapped(
            f"Its distances are of CaffeNet at 227 px, so {distance.backbone} at {distance.image_size} px can be placed"
            f" in it only roughly. By the number alone the nearest of its sets is {name} at {near:.3f}, band"
            f" {band(near, DISTANCE_EDGES)}."
        ),
    ]


def _disagreement(answer: Answer) -> str:
    """How the published word goes with what was measured on these images, or else with the runs of the box."""
    place = answer.places[0]
    ours, who = (answer.verdict, "Runs on these images") if answer.measured else (place.verdict, "The runs of this box")
    if ours is Verdict.NONE:
        return ""
    return f" {who} say the same." if ours is place.published else f" {who} say '{ours}'."


def _trying(trying: Trying) -> list[str]:
    done = trying.trials - trying.to_run - trying.failed
    specs = ", ".join(trying.sweep["grid"]["specs"])
    before = f", {done} of them done before" if done else ""
    time = f"; about {duration(trying.seconds)} on this machine" if trying.seconds else ""
    return [
        "To measure it on these images",
        *wrapped(f"{counted(trying.trials, 'training')} of {specs}, three seeds each, as fair pairs{before}{time}"),
        *([f"  {trying.file} is written"] if trying.file else []),
        f"  {trying.command}",
        *([f"  and {_failed(trying.failed)} again: {trying.command} --retry-failed"] if trying.failed else []),
    ]


def _failed(number: int) -> str:
    return "the one that failed" if number == 1 else f"the {number} that failed"

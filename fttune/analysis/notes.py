"""Lines under the table that take some counting."""

from fttune.analysis.published import published_verdict
from fttune.analysis.ratios import Pairing
from fttune.analysis.recommend import Table


def tests_told(table: Table) -> str:
    """One line on the tests by dataset, with how many were made."""
    told = sum(box.flip_holm is not None and box.flip_holm <= 1 - table.confidence for box in table.boxes)
    level = f"{1 - table.confidence:.2g}"
    return (
        f"Flipping whole datasets, {told} of {table.tested} boxes tested differ from 1 with p <= {level} (Holm)."
        " Each p is in table3.md."
    )


def tilt(pairing: Pairing) -> list[str]:
    """What leaving out a frozen side at chance, and not a tuned one, does to the ratios."""
    low = sum(bool(pair.remark) for pair in pairing.counted)
    better = sum(bool(pair.flagged) and pair.numerator > pair.denominator for pair in pairing.pairs)
    if not low:
        return []
    return [
        f"Near chance the ratios tilt to Freeze: {low} pairs count with the tuned side there,"
        f" {better} are left out with the frozen side there and a better tuned one. The regret counts all."
    ]


def against_the_paper(table: Table) -> list[str]:
    """One line that holds the boxes that have an interval against the paper's; none where no box has one."""
    judged = [(box, published_verdict(box.distance_band, box.image_band)) for box in table.boxes if box.low is not None]
    others = [
        f"distance {box.distance_band} images {box.image_band} ({word})" for box, word in judged if box.verdict != word
    ]
    if others:
        return [f"Other than in the paper's Table 3, whose word is in brackets: {', '.join(others)}."]
    return [f"As in the paper's Table 3 wherever there is an interval ({len(judged)} of 9 boxes)."] if judged else []

"""The regret as a table, and in one line."""

from dataclasses import asdict

from fttune.analysis.recommend import Verdict
from fttune.analysis.regret import ORACLE, POLICIES, TABLE, Loss, Regret, Split
from fttune.analysis.sheet import Row, Sheet, text


def regret_sheet(found: Regret, *, confidence: float) -> Sheet:
    """Each policy with what it loses, the first note in one line; no number with fewer than two datasets."""
    return Sheet(
        title="What the advice is worth: regret on a dataset left out",
        columns=("policy", "points lost", "low", "high", "percent lost", "says", "datasets", "splits", "pairs"),
        rows=tuple(_row(loss, found) for loss in found.losses),
        notes=(headline(found), *_notes(found, confidence)),
        facts={
            "splits": [asdict(split) | {"lost": _lost(split)} for split in found.splits],
            "left_out": found.left_out,
        },
    )


def headline(found: Regret) -> str:
    """The regret in one line."""
    if not found.losses:
        return "Regret, what the advice is worth on a dataset left out: needs two datasets with a distance."
    told = [f"{loss.policy} {text(round(loss.points, 2))}" for loss in found.losses if loss.policy != ORACLE]
    table = found.losses[POLICIES.index(TABLE)]
    told[0] += "" if table.low is None or table.high is None else f" [{table.low:.2f}, {table.high:.2f}]"
    counts = f"n = {found.datasets} datasets, {found.pairs} pairs"
    return f"Regret, points of test accuracy lost on a dataset left out ({counts}): {'; '.join(told)}."


def _row(loss: Loss, found: Regret) -> Row:
    says = [split.words[loss.policy] for split in found.splits]
    return {
        "policy": loss.policy,
        "points lost": loss.points,
        "low": loss.low,
        "high": loss.high,
        "percent lost": loss.share,
        "says": ", ".join(f"{says.count(word)} {word}" for word in Verdict if word in says),
        "datasets": found.datasets,
        "splits": len(found.splits),
        "pairs": found.pairs,
    }


def _notes(found: Regret, confidence: float) -> list[str]:
    left = [f"Without a distance, so not judged: {', '.join(found.left_out)}."] if found.left_out else []
    if not found.losses:
        return ["One dataset is there to be judged on, so another must be there to learn from.", *left]
    published = sum(split.published for split in found.splits)
    outside = sum(not split.supported for split in found.splits)
    return [
        "Each dataset is left out in turn; table and smooth model are made from the others. Lost is test accuracy below"
        " the better of tuned and frozen (means over seeds), averaged over a dataset's splits, then over datasets: in"
        f" points with a {confidence * 100:g} % interval over datasets (none where all lost alike), and in percent of"
        " the better.",
        "Try Freeze or Tune counts the mean of both. The smooth model says Tune above a ratio of 1, Freeze below. The"
        " oracle chooses by the test set, which nobody has. Where val decides (its mean over seeds) both are trained.",
        f"The others left the box of {published} of {len(found.splits)} splits without evidence; there the published"
        f" table spoke. {outside} splits lie outside what the smooth model was fitted on; its word counts all the"
        " same.",
        *left,
    ]


def _lost(split: Split) -> dict[str, float]:
    return {policy: split.lost(policy) for policy in POLICIES}

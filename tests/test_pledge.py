"""A search keeps the space that it began with for as long as its sweep has its name."""

from pathlib import Path
from typing import Any

import pytest

from fttune.config import Sweep, load_sweep
from fttune.errors import ConfigError
from fttune.pledge import check_space, pledge
from fttune.query import default_settings
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from small_sweeps import fttune, told, write_sweep
from stores import make_database

SEARCH: dict[str, Any] = {"sampler": "shared", "settings": 2, "space": {"lr": [0.005, 0.5]}}


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker(make_database(tmp_path), "fttune")


def begin(tracker: Tracker, sweep: Sweep, folder: Path) -> None:
    check_space(sweep, tracker)
    with Writer(tracker, folder / "spool", sweep.name) as writer:
        pledge(sweep, writer)


def test_a_search_of_another_space_is_refused_in_one_line_and_nothing_is_overwritten(
    tracker: Tracker, tmp_path: Path
) -> None:
    path = write_sweep(tmp_path, search=SEARCH)
    begin(tracker, load_sweep(path), tmp_path)
    noted = tracker.noted("small")
    wide, more = "search.space.lr=[0.001,0.5]", "search.space.bn=[source,batch]"
    with pytest.raises(ConfigError, match=r"search of small \(bn not searched -> \['source', 'batch'\]\): put"):
        begin(tracker, load_sweep(path, [more]), tmp_path)
    for command, *words in (("plan",), ("run",), ("plan", "search.sampler=tpe")):
        refused = fttune(command, path, wide, *words)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert "running search of small (lr [0.005, 0.5] -> [0.001, 0.5]): put the old space back" in refused.stderr
    assert tracker.noted("small").items() >= noted.items()
    assert not tracker.records()


def test_more_settings_another_name_and_another_sampler_are_no_other_space(tracker: Tracker, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, search=SEARCH)
    begin(tracker, load_sweep(path), tmp_path)
    wide = "search.space.lr=[0.001,0.5]"
    for words in (["search.settings=5"], [wide, "name=other"], [wide, "search.sampler=fixed"], ["train.lr=0.1"]):
        begin(tracker, load_sweep(path, words), tmp_path)
    assert told("plan", path, "search.settings=5")["total"] > 0


def test_a_sweep_keeps_each_setting_that_it_ever_started_from(tracker: Tracker, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, search=SEARCH)
    for rate in ("0.05", "0.1", "0.05"):
        begin(tracker, load_sweep(path, [f"train.lr={rate}"]), tmp_path)
    found = default_settings(experiment="fttune", uri=tracker.uri)
    assert sorted(setting[0] for setting in found) == [0.05, 0.1]

"""Garbage is searched for seldom, and not at all where a search would look through what stays."""

import gc
import subprocess
import sys

import pytest

from fttune.garbage import uncollected

KNOT = """
class Knot:
    def __init__(self):
        self.me = self

    def __del__(self):
        print("found")

Knot()
"""


def test_no_search_runs_in_the_block_and_searches_go_on_after_it_whatever_ends_it() -> None:
    seen = []

    @uncollected()
    def fail() -> None:
        seen.append(gc.isenabled())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [*seen, gc.isenabled()] == [False, True]


def test_a_block_within_another_does_not_end_its_rest() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()


@pytest.mark.parametrize(
    ("begin", "found"), [("", "found"), ("from fttune.garbage import seldom_collected; seldom_collected()", "")]
)
def test_a_command_does_not_search_through_what_its_end_gives_back(begin: str, found: str) -> None:
    done = subprocess.run([sys.executable, "-c", begin + KNOT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found

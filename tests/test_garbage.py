"""No garbage is searched for where a search would look through what stays."""

import gc

import pytest

from fttune.garbage import uncollected


def test_no_search_runs_in_the_block_and_searches_go_on_after_it_whatever_ends_it() -> None:
    seen = []

    @uncollected()
    def fail() -> None:
        seen.append(gc.isenabled())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [*seen, gc.isenabled()] == [False, True]


def test_a_block_that_another_thread_leaves_keeps_searches_out_of_those_that_go_on() -> None:
    theirs, ours = uncollected(), uncollected()
    theirs.__enter__()
    with ours:
        theirs.__exit__(None, None, None)
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_block_within_another_does_not_end_its_rest() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()

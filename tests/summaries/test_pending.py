"""When a starting trie node has heard enough of the other holders to answer for what is there."""

from __future__ import annotations

import pytest

from summaries.pending import MAX_GENERATIONS, Recovery


def recovery(asked: int, others: int, failed: int) -> Recovery:
    made = Recovery()
    made.asked = made.answers = asked
    made.others, made.failed = others, failed
    return made


@pytest.mark.parametrize(
    ("asked", "others", "silent_at_most"),
    [(3, 2, 0), (3, 3, 1), (2, 1, 0), (1, 0, 0), (20, 20, 1), (21, 20, 0)],
)
def test_no_more_may_be_silent_than_a_quorum_of_the_holders_can_do_without(
    asked: int, others: int, silent_at_most: int
) -> None:
    for failed in range(others + 1):
        assert recovery(asked, others, failed).suffices == (failed <= silent_at_most)


def test_what_was_lost_is_asked_for_again_and_in_the_end_one_other_is_enough() -> None:
    one = recovery(3, 3, 0)
    one.lost = True
    assert not one.suffices
    one.generation = MAX_GENERATIONS
    one.failed = 2
    assert one.suffices
    one.failed = 3
    assert not one.suffices

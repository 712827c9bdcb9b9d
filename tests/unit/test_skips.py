"""What a body says of what comes after its task, as it is told."""

from typing import Any

import pytest

from jobrunner import current
from jobrunner.errors import InvalidParametersError, OutsideJobError
from jobrunner.statements import SKIPS, Statement
from jobrunner.states import TaskState
from jobrunner.text import NAME, SENTENCE
from workers.skips import Skips


def told(*said: tuple[str, ...]) -> Statement:
    skips = Skips()
    for why, *names in said:
        skips.add(why, names)
    return skips.added_to(None)


def test_without_names_all_that_comes_next_is_skipped() -> None:
    assert told(("no work",)) == Statement(skips="no work")


def test_names_and_reasons_add_up() -> None:
    said = told(("no pictures", "resize"), ("no films", "cut", "resize"), ("no films", "join"))
    assert said == Statement(skips="no pictures; no films", branches=("resize", "cut", "join"))


def test_who_says_all_once_means_all() -> None:
    assert told(("no pictures", "resize"), ("nothing at all",)).branches == ()


def test_it_is_told_with_what_else_the_body_states() -> None:
    skips = Skips()
    skips.add("no work", ())
    assert skips.added_to(Statement(state=TaskState.SKIPPED, why="why")) == Statement(
        state=TaskState.SKIPPED, why="why", skips="no work"
    )


def test_a_long_reason_is_cut() -> None:
    assert len(told(("x" * 10_000,)).skips or "") <= SENTENCE


@pytest.mark.parametrize("name", ["", "x" * (NAME + 1), 1, None, "a\x00b"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidParametersError, match="no name of a task"):
        Skips().add("no work", [name])


def test_outside_of_a_job_nothing_comes_next() -> None:
    with pytest.raises(OutsideJobError):
        current.skip_next("no work")


@pytest.mark.parametrize("why", ["no work", SKIPS, f"a {SKIPS}b", "\\", '"'])
def test_whether_it_skips_can_be_seen_in_its_json(why: str) -> None:
    assert SKIPS in Statement(skips=why).dumps()
    assert SKIPS not in Statement(why=why, branches=(why,)).dumps()

"""Failed attempts in groups, and in a line each."""

from typing import Any

import pytest

from jobrunner.cli.failures import failure_line
from jobrunner.error_groups import group_errors, group_item_errors
from jobrunner.store.attempts import AttemptView
from jobrunner.store.items import ItemErrorView
from tests.builders import MIDNIGHT, moment


def failed(exception: str | None = "ValueError('no')", **known: Any) -> AttemptView:
    fields = dict.fromkeys(AttemptView.__slots__)
    given = {"task_id": "task", "name": "work", "delivery": 1, "retries": 0, "outcome": "retried", "worker": "w1@host"}
    return AttemptView(**{**fields, **given, "exception": exception, "ended_at": MIDNIGHT, **known})


def test_a_group_says_how_often_from_when_to_when_and_where() -> None:
    ones = [
        failed(ended_at=moment(3)),
        failed(ended_at=moment(1), worker="w2@host", outcome="failed"),
        failed(ended_at=moment(2), worker=None, task_id="other", name="play"),
    ]
    (group,) = group_errors(ones)
    assert (group.error, group.attempts, group.tasks) == ("ValueError('no')", 3, 2)
    assert (group.first_at, group.last_at) == (moment(1), moment(3))
    assert (group.workers, group.names) == (["w1@host", "w2@host"], ["play", "work"])
    assert group.outcomes == {"retried": 2, "failed": 1}


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("KeyError(17)", "KeyError(4)", "KeyError(#)"),
        ("took 1.5 s", "took 30 s", "took # s"),
        ("<object at 0x7f00ab>", "<object at 0x7f00cd>", "<object at #>"),
        (
            "no 01a20231-8d02-7a51-9f0e-3b1c7d5e2a44",
            "no 01a20231-8d02-7a51-9f0e-000000000000",
            "no #",
        ),
        ("commit 0a1b2c3d4e is gone", "commit ffee00112233 is gone", "commit # is gone"),
    ],
)
def test_messages_that_differ_in_numbers_and_ids_are_one_group(one: str, other: str, both: str) -> None:
    assert [group.error for group in group_errors([failed(one), failed(other)])] == [both]
    assert [group.error for group in group_errors([failed(one), failed(one)])] == [one]


@pytest.mark.parametrize("other", ["TypeError('no')", "ValueError('never')", "ValueError('no facade')"])
def test_other_exceptions_and_other_messages_are_other_groups(other: str) -> None:
    assert len(group_errors([failed(), failed(other)])) == 2


def test_the_largest_group_comes_first() -> None:
    assert [one.error for one in group_errors([failed("a"), failed("b"), failed("b")])] == ["b", "a"]
    assert group_errors([]) == []


def test_what_a_worker_has_taken_with_it_is_a_group() -> None:
    (group,) = group_errors([failed(None, outcome="lost"), failed(None, outcome="lost")])
    assert (group.error, group.attempts) == ("its worker was lost", 2)


def test_a_line_says_when_which_task_which_try_who_and_why() -> None:
    at = MIDNIGHT.astimezone().strftime("%H:%M:%S")
    assert failure_line(failed()) == f"{at}  soft-failed  work [task], try 1, w1@host: ValueError('no')"
    again = failed(outcome="failed", retries=2, delivery=3)
    assert failure_line(again) == f"{at}  failed  work [task], try 3, delivery 3, w1@host: ValueError('no')"


def test_a_line_is_one_that_a_terminal_may_print() -> None:
    assert "\n" not in failure_line(failed("a\nb\x1b[31m"))
    assert "a b\N{REPLACEMENT CHARACTER}[31m" in failure_line(failed("a\nb\x1b[31m"))


def item(message: str, **known: Any) -> ItemErrorView:
    given = {"task_id": "task", "name": "work", "number": 0, "item": "a", "label": "a", "type": None, "details": {}}
    return ItemErrorView(**{**given, "message": message, **known})


def test_items_that_failed_alike_are_one_group_with_the_tasks_that_they_are_of() -> None:
    ones = [item("no /data/1"), item("no /data/2", task_id="other", name="play"), item("no /data/1"), item("never")]
    many, one = group_item_errors(iter(ones))
    assert (many.error, many.items, many.tasks, many.names) == ("no /data/#", 3, {"task", "other"}, {"play", "work"})
    assert (one.error, one.items) == ("never", 1)


def test_the_type_of_an_item_error_is_part_of_what_it_says() -> None:
    groups = group_item_errors(
        [item("7 is odd", type="ValueError"), item("7 is odd", type="ValueError"), item("7 is odd")]
    )
    assert [(one.error, one.items) for one in groups] == [("ValueError: 7 is odd", 2), ("7 is odd", 1)]

"""What bodies may state, how that is told, and what of it is taken at its word."""

import json
from typing import Any

import pytest

from jobrunner import ItemError, Partial, Skip
from jobrunner.errors import InvalidParametersError
from jobrunner.statements import ItemCounts, Statement
from jobrunner.states import TaskState
from jobrunner.text import NAME, SENTENCE
from tests.builders import moment
from tracker.statements import errors_told, note_of, text_told
from workers.statements import in_parts, statement_of, value_of

KEY = (1, 0, "process-1")


def partial(*items: Any, **counts: Any) -> Partial[str]:
    return Partial("value", errors=[ItemError(item=one, message="no") for one in items], **counts)


@pytest.mark.parametrize(
    ("returned", "state"),
    [
        (partial("a"), TaskState.PARTIAL),
        (partial(failed=1), TaskState.PARTIAL),
        (partial(aborted=1), TaskState.PARTIAL),
        (partial(processed=3, skipped=1), TaskState.COMPLETED),
        (Skip("why"), TaskState.SKIPPED),
    ],
)
def test_a_statement_says_what_the_task_becomes(returned: object, state: TaskState) -> None:
    statement = statement_of(returned)
    assert statement is not None
    assert statement.state is state
    assert Statement.loads(statement.dumps()) == statement


@pytest.mark.parametrize("value", [None, "text", {"errors": [1]}, ValueError("no")])
def test_any_other_value_is_just_a_value(value: object) -> None:
    assert statement_of(value) is None
    assert value_of(value) is value


def test_without_a_number_as_many_items_failed_as_there_are_errors() -> None:
    assert partial("a", "b", processed=1).counts == ItemCounts(processed=1, failed=2)
    assert partial("a", failed=9).counts == ItemCounts(failed=9)


@pytest.mark.parametrize(
    "counts", [{"processed": -1}, {"failed": 1.5}, {"failed": float("nan")}, {"skipped": True}, {"aborted": "3"}]
)
def test_what_is_no_number_of_items_is_refused(counts: dict[str, Any]) -> None:
    with pytest.raises(InvalidParametersError, match="is no number of items"):
        partial(**counts)


def test_an_error_that_is_no_item_error_is_refused() -> None:
    with pytest.raises(InvalidParametersError, match=r"ItemError\(item="):
        Partial(None, errors=["no"])  # type: ignore[list-item]


@pytest.mark.parametrize("item", [object(), "x" * 5_000, float("nan"), ["a", float("inf")]])
def test_an_item_that_cannot_be_processed_again_is_told_by_its_label_alone(item: object) -> None:
    told = ItemError(item=item, message="m" * 5_000).as_told()
    assert told["item"] is None
    assert 0 < len(told["label"]) <= NAME
    assert len(told["message"]) == SENTENCE


def test_in_details_a_number_that_json_does_not_have_is_null() -> None:
    told = ItemError(item="a", message="no", details={"ratio": float("nan"), "at": [1.5, float("-inf")]}).as_told()
    assert json.loads(told["details"], parse_constant=pytest.fail) == {"ratio": None, "at": [1.5, None]}


def test_parts_are_short_and_numbered() -> None:
    errors = [ItemError(item="x" * 3_000, message="y" * 900)] * 500
    parts = list(in_parts(errors))
    assert [first for first, _ in parts] == [sum(len(part) for _, part in parts[:n]) for n in range(len(parts))]
    assert sum(len(part) for _, part in parts) == 500
    assert max(len(json.dumps(part)) for _, part in parts) < 300_000


# ---- what the tracker makes of it ------------------------------------------------------------------------


def told(statement: object, at: float = 0.0) -> str | None:
    return text_told({"statement": statement}, moment(at))


@pytest.mark.parametrize("odd", [None, "partial", [], {}, {"state": "failed"}, {"state": ["partial"]}, {"state": 1}])
def test_what_says_nothing_is_no_statement(odd: object) -> None:
    assert told(odd) is None


def test_what_is_odd_in_a_statement_is_taken_for_unknown_and_text_is_cut() -> None:
    text = told(
        {
            "state": "partial",
            "why": "w" * 5_000,
            "counts": {"processed": -1, "failed": 2**70, "skipped": "1", "aborted": 3},
            "errors": None,
            "skips": 1,
            "branches": [1, "b" * 500],
        }
    )
    statement = Statement.loads(text or "")
    assert statement.state is TaskState.PARTIAL
    assert (len(statement.why or ""), statement.counts) == (SENTENCE, ItemCounts(aborted=3))
    assert (statement.errors, statement.skips, [len(one) for one in statement.branches]) == (0, None, [NAME])


def test_of_two_statements_the_later_one_is_the_greater_text() -> None:
    texts = [told({"state": state}, at) or "" for at, state in ((1, "skipped"), (2.5, "completed"), (11, "partial"))]
    assert texts == sorted(texts)


def test_odd_errors_are_left_out_and_odd_fields_of_one_are_taken_for_unknown() -> None:
    fields = {"errors": ["no", {"label": 1, "item": "[1", "details": "x" * 5_000}, {"message": "m"}], "first": 7}
    first, second = errors_told(fields, "task", KEY)
    assert (first.number, first.label, first.message, first.details) == (8, "?", "", None)
    assert (second.number, second.message) == (9, "m")
    assert list(errors_told({"errors": 3}, "task", KEY)) == []
    assert list(errors_told({"errors": [{}], "first": 10_000}, "task", KEY)) == []


@pytest.mark.parametrize("odd", ["[1", "nonsense", '"' + chr(0), "[" * 4_000, "NaN", "[-Infinity]"])
def test_an_item_that_is_no_json_is_not_kept(odd: str) -> None:
    (only,) = errors_told({"errors": [{"item": odd, "details": "[1]"}]}, "task", KEY)
    assert (only.item, only.details) == (None, None)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (Statement(state=TaskState.SKIPPED, why="no paths"), "no paths"),
        (Statement(state=TaskState.SKIPPED), "nothing to do"),
        (Statement(), None),
        (Statement(state=TaskState.PARTIAL, errors=2), "2 failed of 2 items"),
        (
            Statement(state=TaskState.PARTIAL, why="a: no", counts=ItemCounts(processed=1_000, failed=1, aborted=2)),
            "1 failed and 2 aborted of 1,003 items, the first: a: no",
        ),
        (
            Statement(state=TaskState.PARTIAL, why="a: no", counts=ItemCounts(processed=3), errors=1),
            "some of 3 items, the first: a: no",
        ),
    ],
)
def test_people_are_told_how_many_items_failed_and_which_was_the_first(statement: Statement, said: str | None) -> None:
    assert note_of(statement) == said

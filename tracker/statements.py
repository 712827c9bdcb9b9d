"""What a body has stated, as events tell it: checked and bounded, and said in words. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from jobrunner import strict_json
from jobrunner.records import Attempt, AttemptKey, Failed, ItemErrorRow
from jobrunner.statements import LONGEST_ITEM, MOST_ERRORS, ItemCounts, Statement
from jobrunner.states import WELL, TaskState
from jobrunner.text import NAME, SENTENCE, bounded

#: What people are told of a task that is skipped because of `skip_empty`.
EMPTY_NOTE = "skipped: what it takes is empty"
#: Names of branches that one statement may skip.
_BRANCHES = 1_000
#: More than anybody counts; the sums of a job of a million tasks stay far below what a database adds up.
_MOST = 2**40


def text_told(fields: Mapping[str, Any], at: datetime) -> str | None:
    """Return a statement as an execution keeps it; None if an event has none, or one that says nothing.

    Its time comes first, so that of two the greater text is the later one.
    """
    statement = _read(fields.get("statement"))
    if statement is None:
        return None
    return json.dumps({"at": at.isoformat(timespec="microseconds"), **asdict(statement)})


def _read(told: object) -> Statement | None:
    if not isinstance(told, Mapping):
        return None
    state = next((one for one in WELL if one == told.get("state")), None)
    if state is None:
        return None
    branches = told.get("branches")
    return Statement(
        state=state,
        why=_text(told.get("why")),
        counts=_counts(told.get("counts")),
        errors=_number(told.get("errors")),
        skips=_text(told.get("skips")),
        branches=tuple(bounded(one, NAME) for one in branches[:_BRANCHES] if isinstance(one, str))
        if isinstance(branches, list)
        else (),
    )


def _text(told: object, limit: int = SENTENCE) -> str | None:
    return bounded(told, limit) if isinstance(told, str) else None


def _number(told: object) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < _MOST else 0


def _counts(told: object) -> ItemCounts | None:
    if not isinstance(told, Mapping):
        return None
    return ItemCounts(**{name: _number(told.get(name)) for name in ItemCounts.__slots__})


def errors_told(fields: Mapping[str, Any], task_id: str, key: AttemptKey) -> Iterator[ItemErrorRow]:
    """Yield the item errors that an event tells of an execution, as many as are kept of one."""
    errors, first = fields.get("errors"), _number(fields.get("first"))
    if not isinstance(errors, list):
        return
    delivery, retries, process = key
    for number, one in enumerate(errors[: max(MOST_ERRORS - first, 0)], first):
        if isinstance(one, Mapping):
            yield ItemErrorRow(
                task_id=task_id, delivery=delivery, retries=retries, process=process, number=number,
                item=_json(one.get("item")), label=_text(one.get("label"), NAME) or "?",
                type=_text(one.get("type"), NAME), message=_text(one.get("message")) or "",
                details=_json(one.get("details"), dict),
            )  # fmt: skip


def _json(told: object, *kinds: type) -> str | None:
    """Return JSON that is whole, and of one of these kinds if any are given; of anything else nothing could be made."""
    if not isinstance(told, str) or len(told) > LONGEST_ITEM or bounded(told, LONGEST_ITEM) != told:
        return None
    try:
        value = strict_json.loads(told)
    except (ValueError, RecursionError):
        return None
    return told if not kinds or isinstance(value, kinds) else None


def stated(attempt: Attempt) -> Statement | None:
    """Return what the body of an execution has stated, None if nothing."""
    return None if attempt.statement is None else Statement.loads(attempt.statement)


def note_of(statement: Statement) -> str | None:
    """Return what people are told of a task that has ended partial or skipped."""
    if statement.state is TaskState.SKIPPED:
        return statement.why or "nothing to do"
    if statement.state is not TaskState.PARTIAL:
        return None
    return bounded(f"{_how_many(statement)}{f', the first: {statement.why}' if statement.why else ''}", SENTENCE)


def note_of_skipped(why: str, by: str) -> str:
    """Return what people are told of a task that another one has had skipped."""
    return bounded(f"skipped: {why} (said by {by})", SENTENCE)


def note_of_partial(first: Failed, tasks: int, items: int) -> str:
    """Say of a job which of its tasks that ended partial is the first; of several, how many items of them failed."""
    named = f"{first.name} [{first.id}] partial: {first.why}"
    if tasks > 1:
        named = f"{tasks:,} tasks are partial, {items:,} items failed; the first task is {named}"
    return bounded(named, SENTENCE)


def _how_many(statement: Statement) -> str:
    counts = statement.counts or ItemCounts(failed=statement.errors)
    total = counts.processed + counts.skipped + counts.failed + counts.aborted
    said = [f"{number:,} {word}" for number, word in ((counts.failed, "failed"), (counts.aborted, "aborted")) if number]
    return f"{' and '.join(said) or 'some'} of {total:,} item{'' if total == 1 else 's'}"

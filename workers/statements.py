"""What a body states of its work, told before its end: the event log has it before the task has succeeded (N2).

For Celery the task has succeeded: the value of a `Partial` or a `Skip` is stored, and flows on.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.events.event import Event

from jobrunner.statements import MOST_ERRORS, ItemError, Partial, Skip, Statement
from jobrunner.states import TaskState
from jobrunner.text import SENTENCE, bounded
from jobrunner.wire import TASK_STATED

#: Seconds for which the event log is waited for.
_PATIENCE = 30.0
#: Characters of JSON that one event has of item errors.
_LENGTH = 250_000


def value_of(returned: object) -> Any:
    """Return the value that flows on."""
    return returned.value if isinstance(returned, Partial | Skip) else returned


def errors_of(returned: object) -> Sequence[ItemError]:
    """Return the item errors that a body has returned."""
    return returned.errors if isinstance(returned, Partial) else ()


def statement_of(returned: object) -> Statement | None:
    """Return what the tracker is to know of what a body has returned, or raised; None if that is just a value.

    A `Partial` of which no item failed, and all were reached, is a success with counts.
    """
    if isinstance(returned, Skip):
        return Statement(state=TaskState.SKIPPED, why=returned.why)
    if not isinstance(returned, Partial):
        return None
    counts, errors = returned.counts, returned.errors
    bad = errors or counts.failed or counts.aborted
    return Statement(
        state=TaskState.PARTIAL if bad else TaskState.COMPLETED,
        why=_first(errors[0]) if errors else None,
        counts=counts,
        errors=len(errors),
    )


def _first(error: ItemError) -> str:
    told = error.as_told()
    return bounded(f"{told['label']}: {told['message']}", SENTENCE)


def tell_statement(app: Celery, request: Context, statement: Statement, errors: Sequence[ItemError] = ()) -> None:
    """Write into the event log what a body states: item errors in parts, as many as are kept, and then the statement.

    Raises:
        EventLogFullError, UnreachableError: the event log does not take it; this attempt cannot succeed any more.
    """
    for first, part in in_parts(errors[:MOST_ERRORS]):
        _tell(app, request, errors=part, first=first)
    _tell(app, request, statement=asdict(statement))


def in_parts(errors: Sequence[ItemError]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield item errors as they are told, in parts that are short enough, each with the number of its first one."""
    part: list[dict[str, Any]] = []
    first = length = 0
    for number, error in enumerate(errors):
        told = error.as_told()
        size = len(json.dumps(told))
        if part and length + size > _LENGTH:
            yield first, part
            part, first, length = [], number, 0
        part.append(told)
        length += size
    if part:
        yield first, part


def _tell(app: Celery, request: Context, **fields: Any) -> None:
    about = {"uuid": request.id, "root_id": request.root_id, "retries": request.retries}
    event = Event(TASK_STATED, hostname=request.hostname, **about, **fields)
    app.events.flusher.tell([event], timeout=_PATIENCE)

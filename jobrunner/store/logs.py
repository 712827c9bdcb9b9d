"""Questions about what tasks have logged. Nothing here writes."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, select

from jobrunner.log_lines import NOTICE, LogLine, read_part
from jobrunner.store.attempts import AttemptView
from jobrunner.store.schema import log_part


def one_attempt(views: Sequence[AttemptView], attempt: int | None, delivery: int | None) -> AttemptView | None:
    """Return the attempt with this number, or the last one, of a task's attempts, the oldest first.

    Of several with a number it is the last one that somebody is known to have run.
    """
    told = [
        one
        for one in views
        if (attempt is None or one.retries == attempt - 1) and (delivery is None or one.delivery == delivery)
    ]
    return max(
        reversed(told), key=lambda one: (not one.foreign, one.delivery, one.retries, _has_run(one)), default=None
    )


def _has_run(one: AttemptView) -> bool:
    return one.started_at is not None


def read_log(connection: Connection, one: AttemptView, *, after: int = -1) -> Iterator[tuple[int, LogLine]]:
    """Yield the lines of an attempt, each with the number of its part, beginning behind the one with this number.

    A notice stands in the place of parts that are missing.
    """
    columns = log_part.c
    key = (columns.task_id, columns.delivery, columns.retries, columns.process)
    query = (
        select(columns.number, columns.at, columns.text)
        .where(*(column == value for column, value in zip(key, one.key, strict=True)), columns.number > after)
        .order_by(columns.number)
    )
    for number, at, text in connection.execute(query):
        if number > after + 1:
            yield number, LogLine(at=at, level=NOTICE, text="A part is missing here: it was lost, or had no room.")
        yield from ((number, line) for line in read_part(text, at))
        after = number

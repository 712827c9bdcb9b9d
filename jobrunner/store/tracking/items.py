"""What tasks state of their items: why some were not processed, and how many were."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select

from jobrunner.records import ItemCountRow, ItemErrorRow
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import item_count, item_error
from jobrunner.store.tracking.rows import IsOneOf, rows_of

_KEY = ("task_id", "delivery", "retries", "process", "number")
_KNOWN_ERRORS = select(*(item_error.c[name] for name in _KEY)).where(
    IsOneOf(item_error.c.task_id), item_error.c.number >= bindparam("first")
)
_UPDATE_ERRORS = Update(item_error, _KEY, [name for name in ItemErrorRow.__slots__ if name not in _KEY])


def save_item_errors(connection: Connection, errors: Sequence[ItemErrorRow]) -> None:
    """Write item errors; of two with the same number in one execution the last one stands."""
    if not errors:
        return
    rows = {_key_of(one): {name: getattr(one, name) for name in ItemErrorRow.__slots__} for one in errors}
    asked = {"ids": list({one.task_id for one in errors}), "first": min(one.number for one in errors)}
    known = {tuple(row) for row in connection.execute(_KNOWN_ERRORS, asked)}
    insert_rows(connection, item_error, [row for key, row in rows.items() if key not in known])
    _UPDATE_ERRORS.run(connection, [row for key, row in rows.items() if key in known])


def _key_of(one: ItemErrorRow) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in _KEY)


_EXECUTION = item_error.c.task_id, item_error.c.delivery, item_error.c.retries, item_error.c.process
_LAST_ERRORS = (
    select(*_EXECUTION, func.max(item_error.c.number)).where(IsOneOf(item_error.c.task_id)).group_by(*_EXECUTION)
)


def forget_surplus_errors(connection: Connection, said: Mapping[tuple[str, int, int, str], int]) -> None:
    """Delete the errors of executions beyond those that they have said they have; nearly always there are none."""
    if not said:
        return
    for *key, last in connection.execute(_LAST_ERRORS, {"ids": list({task_id for task_id, *_ in said})}).all():
        number = said.get((key[0], key[1], key[2], key[3]), last + 1)
        if last >= number:
            of_it = (column == value for column, value in zip(_EXECUTION, key, strict=True))
            connection.execute(delete(item_error).where(*of_it, item_error.c.number >= number))


_KNOWN_COUNTS = select(item_count.c.task_id).where(IsOneOf(item_count.c.task_id))
_NUMBERS = ("processed", "skipped", "failed", "aborted")
_UPDATE_COUNTS = Update(item_count, ["task_id"], _NUMBERS)


def save_item_counts(connection: Connection, counts: Collection[ItemCountRow]) -> None:
    """Write how many items tasks have processed; what was known of them is replaced."""
    if not counts:
        return
    known = {row["task_id"] for row in rows_of(connection, _KNOWN_COUNTS, {one.task_id for one in counts})}
    rows = [{name: getattr(one, name) for name in ItemCountRow.__slots__} for one in counts]
    insert_rows(connection, item_count, [row for row in rows if row["task_id"] not in known])
    _UPDATE_COUNTS.run(connection, [row for row in rows if row["task_id"] in known])


_FORGET = delete(item_count).where(IsOneOf(item_count.c.task_id))


def forget_item_counts(connection: Connection, task_ids: Collection[str]) -> None:
    """Forget how many items tasks have processed that run again."""
    if task_ids:
        connection.execute(_FORGET, {"ids": list(task_ids)})


_FAILED_ITEMS = select(func.coalesce(func.sum(item_count.c.failed), 0)).where(
    item_count.c.job_id == bindparam("job_id_")
)


def count_failed_items(connection: Connection, job_id: str) -> int:
    """Return how many items of a job have failed, as far as its tasks say so."""
    return int(connection.execute(_FAILED_ITEMS, {"job_id_": job_id}).scalar_one())

"""How far each series of batches was read, and what its worker has lost."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, update

from jobrunner.records import Loss, Series
from jobrunner.store.bulk import Update, insert_rows
from jobrunner.store.schema import series, worker


def known_series(connection: Connection) -> dict[str, Series]:
    """Return all series that are remembered, by id."""
    columns = [series.c[name] for name in Series.__slots__]
    return {row.id: Series(**row._asdict()) for row in connection.execute(select(*columns))}


def save_series(connection: Connection, read: Sequence[Series], new: Collection[str], now: datetime) -> None:
    """Note how far series were read; those with these ids are new."""
    rows = [{name: getattr(one, name) for name in Series.__slots__} | {"heard_at": now} for one in read]
    insert_rows(connection, series, [row for row in rows if row["id"] in new])
    _READ.run(connection, [row for row in rows if row["id"] not in new])


_READ = Update(series, ["id"], ["number", "dropped", "heard_at"])


def forget_series(connection: Connection, silent_since: datetime) -> None:
    """Forget series of which nothing was heard since then."""
    connection.execute(delete(series).where(series.c.heard_at < silent_since))


def add_losses(connection: Connection, losses: Iterable[Loss]) -> None:
    """Count what is lost for the workers that have lost it."""
    rows = [{"name_": one.worker, "events": one.events, "batches": len(one.missed)} for one in losses]
    if rows:
        connection.execute(_LOST, rows)


_LOST = (
    update(worker)
    .where(worker.c.name == bindparam("name_"))
    .values(
        events_dropped=worker.c.events_dropped + bindparam("events"),
        batches_missed=worker.c.batches_missed + bindparam("batches"),
    )
)

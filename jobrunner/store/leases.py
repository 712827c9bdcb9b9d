"""The tracker's lease and its place in the event log: what makes exactly one process decide.

All times are the database's own clock, so that two machines need not agree on theirs.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Double, bindparam, func, insert, select, text, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from jobrunner.store.engines import FROZEN
from jobrunner.store.schema import lease, log_position

_TRACKER = "tracker"


class DatabaseNow(GenericFunction[float]):
    """Seconds since 1970 by the database's clock, at the moment of the call and not of the transaction's begin."""

    type = Double()
    inherit_cache = True
    name = "jobrunner_now"


@compiles(DatabaseNow, "sqlite")
def _sqlite_now(_element: DatabaseNow, _compiler: SQLCompiler, **_kw: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseNow, "postgresql")
def _postgresql_now(_element: DatabaseNow, _compiler: SQLCompiler, **_kw: object) -> str:
    return "extract(epoch from clock_timestamp())::float8"


def _now() -> ColumnElement[float]:
    return func.jobrunner_now()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerStatus:
    """Who tracks, whether the lease still runs, and what keeps the holder from its work.

    `behind_seconds` ago the event log had been read to its end: what was reported since may not be in the database. It
    is at most that much, and measured with one clock, the database's, whatever clocks brokers and workers have. None
    if no tracker has ever got there.
    """

    holder: str
    alive: bool
    trouble: str | None
    behind_seconds: float | None


_FREE = (
    select(lease.c.name)
    .where(lease.c.name == _TRACKER, (lease.c.expires_at < _now()) | (lease.c.holder == bindparam("candidate")))
    .with_for_update(skip_locked=True)  # on SQLite this is nothing: the transaction is alone from its begin
)
_TAKE = update(lease).where(lease.c.name == _TRACKER)


def acquire(connection: Connection, holder: str, seconds: float) -> bool:
    """Take the lease if nobody holds it, or its time is up; True if it is ours now. A migration has made its row.

    A leader within a turn is not waited for: if its time is up, either it commits, or its process is frozen.
    """
    if connection.execute(_FREE, {"candidate": holder}).first() is None:
        if connection.dialect.name == "postgresql":
            connection.execute(_END_FROZEN, {"seconds": float(FROZEN)})
        return False
    connection.execute(_TAKE.values(holder=holder, expires_at=_now() + seconds, trouble=None))
    return True


#: PostgreSQL ends a session that is silent between two statements (`engines`), but not one whose process froze within a
#: statement: while it copies rows in, or reads the answer. It would hold the row of the lease for ever.
_END_FROZEN = text("""
    SELECT pg_terminate_backend(activity.pid)
    FROM pg_stat_activity AS activity
    JOIN pg_locks USING (pid)
    WHERE pg_locks.relation = 'lease'::regclass AND pg_locks.mode = 'RowExclusiveLock' AND pg_locks.granted
    AND activity.usename = current_user AND activity.pid <> pg_backend_pid()
    AND activity.state = 'active' AND activity.wait_event_type = 'Client'
    AND activity.state_change < clock_timestamp() - make_interval(secs => :seconds)
    AND EXISTS (SELECT FROM lease WHERE name = 'tracker' AND expires_at < extract(epoch FROM clock_timestamp()))
""")


_RENEW = (
    update(lease)
    .where(lease.c.name == _TRACKER, lease.c.holder == bindparam("leader"))
    .values(
        expires_at=_now() + bindparam("seconds"),
        trouble=bindparam("trouble"),
        caught_up_at=func.coalesce(_now() - bindparam("drained_ago", type_=Double), lease.c.caught_up_at),
    )
)


def renew(
    connection: Connection, holder: str, seconds: float, trouble: str | None, drained_ago: float | None = None
) -> bool:
    """Extend our lease within the batch's own transaction; False if another tracker has taken it meanwhile.

    So many seconds ago we had the event log read to its end; None if we never had, and what our predecessor noted
    stays.
    """
    values = {"leader": holder, "seconds": seconds, "trouble": trouble, "drained_ago": drained_ago}
    return connection.execute(_RENEW, values).rowcount == 1


def release(connection: Connection, holder: str) -> None:
    """Give the lease back at a clean stop, so that a standby need not wait for its end."""
    connection.execute(
        update(lease).where(lease.c.name == _TRACKER, lease.c.holder == holder).values(expires_at=0.0, trouble=None)
    )


_STATUS = select(
    lease.c.holder,
    lease.c.trouble,
    (lease.c.expires_at >= _now()).label("alive"),
    (_now() - lease.c.caught_up_at).label("behind"),
).where(lease.c.name == _TRACKER, lease.c.holder != "")


def tracker_status(connection: Connection) -> TrackerStatus | None:
    """Return who tracks; None if nobody ever has."""
    row = connection.execute(_STATUS).first()
    if row is None:
        return None
    return TrackerStatus(holder=row.holder, alive=bool(row.alive), trouble=row.trouble, behind_seconds=row.behind)


def read_position(connection: Connection, log: str) -> str | None:
    """Return how far the event log has been folded; None at the very beginning."""
    return connection.execute(select(log_position.c.position).where(log_position.c.log == log)).scalar()


_MOVE = update(log_position).where(log_position.c.log == bindparam("name")).values(position=bindparam("place"))


def write_position(connection: Connection, log: str, position: str) -> None:
    """Note how far the event log has been folded, in the transaction of what was folded."""
    if not connection.execute(_MOVE, {"name": log, "place": position}).rowcount:
        connection.execute(insert(log_position).values(log=log, position=position))

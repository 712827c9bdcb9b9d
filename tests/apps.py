"""Apps, databases and what is in them, for tests that need no broker: theirs is a socket that nobody serves."""

import functools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery
from celery.canvas import Signature
from sqlalchemy import event, func, select

from jobrunner import JobRunner, ids, prerequisites, submit
from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer, Order
from jobrunner.snapshot import Snapshot
from jobrunner.store import tracking
from jobrunner.store.check import wrong_counters
from jobrunner.store.database import Database
from jobrunner.store.orders import insert_orders, read_orders
from jobrunner.store.schema import metadata
from jobrunner.store.upgrade import upgrade
from tests.builders import by_process, moment, raw_event
from tracker.absorb import absorb
from tracker.chores import do_chores
from tracker.events import read_events
from tracker.fold import Event
from tracker.orders import apply_orders
from tracker.prerequisites import tell_dependents
from tracker.recover import give_up_worker
from tracker.sending import Outgoing, take_ready
from tracker.turn import Turn

#: A user's module for tests of the command line, with two tasks and two named jobs, one of which returns no canvas.
SHOP = """
from celery import Celery, chord

from jobrunner import JobRunner

url = {broker!r}
app = Celery("shop", broker=url, backend=url, set_as_current=False)
jobs = JobRunner(app)


@jobs.task(name="shop.add", shared=False)
def add(x, y):
    return x + y


@jobs.task(name="shop.total", shared=False)
def total(values):
    return sum(values)


@jobs.job("nightly")
def nightly(region: str, number: int = 2, verbose: bool = False):
    return chord([add.s(i, len(region)) for i in range(number)], total.s())


@jobs.job("nothing")
def nothing():
    return None
"""


def nobody(folder: Path) -> str:
    """Return the URL of a broker that is away."""
    return f"redis+socket://{folder}/nothing.sock?virtual_host=0"


def sqlite_url(folder: Path, name: str = "jobs.db") -> str:
    return f"sqlite:///{folder / name}"


def new_database(folder: Path, name: str = "jobs.db") -> str:
    """Create a SQLite database with the newest schema and return its URL: migrated once per process, then copied."""
    (folder / name).touch(mode=0o600)  # as an upgrade makes it
    (folder / name).write_bytes(_migrated())
    return sqlite_url(folder, name)


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        upgrade(sqlite_url(Path(folder)))
        return (Path(folder) / "jobs.db").read_bytes()


def new_app(folder: Path, **options: Any) -> Celery:
    """Return an app whose broker and result backend are away."""
    return Celery("shop", **{"broker": nobody(folder), "backend": nobody(folder), "set_as_current": False, **options})


def new_runner(folder: Path, app: Celery | None = None, *, database: str | None = None) -> JobRunner:
    """Return a runner with a few tasks, on a given or a new SQLite database; the caller closes it.

    Tasks of tests are not shared: Celery would register them in every other app of the process.
    """
    runner = JobRunner(app or new_app(folder), database=database or new_database(folder))

    @runner.task(name="add", shared=False)
    def add(x: float, y: float) -> float:
        return x + y

    @runner.task(name="total", shared=False)
    def total(values: list[float]) -> float:
        return sum(values)

    @runner.task(name="anything", shared=False)
    def anything(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    return runner


def store(
    runner: JobRunner,
    canvas: Signature,
    *,
    after: Iterable[str] = (),
    wait_for_failed: bool = False,
    key: str | None = None,
    **options: Any,
) -> str:
    """Do what `submit` does and return the job's id, without the wake-up that a broker which is away makes slow."""
    runner.prepare_tasks()
    waits_for = prerequisites.after(after, key=key, failed=wait_for_failed)
    return submit.write(runner.database, submit.prepare(runner.app, canvas, key=key, after=waits_for, **options))[0]


def nobody_runs_it(*given: object) -> None:
    """What a task does is of no account where there are no workers."""


def take_turn(runner: JobRunner, *events: Event, propagates: bool = False, later: float = 0) -> list[Outgoing]:
    """Do one turn of the tracker: what events tell, and what that leads to; return what it puts into the outbox.

    Each turn is at midnight, or so many seconds later.
    """
    with runner.database.write() as connection:
        turn = Turn(connection, moment(later), propagates=propagates)
        absorb(turn, events, ())
        turn.take_up()
        apply_orders(turn)
        turn.move_on()
        do_chores(turn)
        taken = take_ready(turn)
        turn.settle()
        tell_dependents(turn)
    return taken


def live(runner: JobRunner, *workers: str, queues: Iterable[str] = ("celery",)) -> None:
    """Let workers say which version of the snapshot they go by, and what they consume, as they do when they start."""
    told = [raw_event(type="snapshot-applied", hostname=one, version=0, queues=list(queues)) for one in workers]
    take_turn(runner, *read_events(by_process(*told)).events)


def give_up(runner: JobRunner, worker: str, *, redelivers: bool = True) -> int:
    """Let the tracker give up a worker, of which no process lives; return of how many tasks it sends the next delivery.

    `redelivers` says whether the broker gives its messages to others.
    """
    with runner.database.write() as connection:
        turn = Turn(connection, moment())
        number = give_up_worker(turn, worker, living_source=None, redelivers=redelivers)
        turn.settle()
    check_counters(runner.database)
    return number


def order(runner: JobRunner, kind: str, job_id: str, task_id: str | None = None, **arguments: Any) -> str:
    """Give an order and return its id; the next turn takes it."""
    given = Order(
        id=ids.uuid7(), kind=OrderKind(kind), job_id=job_id, task_id=task_id, arguments=arguments, asked_by="tester",
        why=None,
    )  # fmt: skip
    with runner.database.write() as connection:
        insert_orders(connection, [given])
    return given.id


def answer_to(runner: JobRunner, order_id: str) -> Answer | None:
    """Return what became of an order; None as long as it is not done."""
    with runner.database.read() as connection:
        return read_orders(connection, [order_id])[order_id].answer


@contextmanager
def statements_to(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Yield what a database is told in transactions that write: each statement, and the parameters of its first row."""
    told: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        told.append((statement, parameters[0] if many else parameters))

    with database.write() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield told
    finally:
        event.remove(engine, "before_cursor_execute", note)


def check_counters(database: Database) -> None:
    """See that every counter is what the rows say. `db check` compares the schema, too, which takes its time."""
    with database.read() as connection:
        assert wrong_counters(connection) == []


def snapshot_of(runner: JobRunner) -> Snapshot:
    """Return what workers are to know now."""
    with runner.database.read() as connection:
        return tracking.load_snapshot(connection)


def job_row(runner: JobRunner) -> dict[str, Any]:
    """Return the row of the only job."""
    (row,) = read_rows(runner.database, "job")
    return row


def task_row(runner: JobRunner, task_id: str) -> dict[str, Any]:
    """Return the row of a task."""
    return next(row for row in read_rows(runner.database, "task") if row["id"] == task_id)


def count_rows(database: Database) -> dict[str, int]:
    """Return how many rows each table has."""
    with database.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in metadata.tables.items()
        }


def read_rows(database: Database, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table, in order of its first column."""
    with database.read() as connection:
        found = metadata.tables[table]
        return [row._asdict() for row in connection.execute(select(found).order_by(next(iter(found.columns))))]

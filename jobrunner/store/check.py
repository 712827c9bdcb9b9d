"""Whether a database is what it should be: its schema that of the models, its counters those of its rows.

Counters are a cache that only the tracker writes, in the transaction that moves a task. So they always agree within
one view of the database, however many jobs run.
"""

from collections.abc import Iterator

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Connection, Row, Subquery, case, func, literal, or_, select

from jobrunner.states import DISCOVERED, DISCOVERING, WELL, JobState
from jobrunner.store.database import Database
from jobrunner.store.migrations import FOLDER, HEAD
from jobrunner.store.schema import COUNTERS, block, job, metadata, prerequisite, task

#: Faults told per question: one fault in the code makes many rows wrong.
_TOLD = 20


def check(database: Database) -> list[str]:
    """Return a sentence for everything that is wrong.

    Raises:
        UnreachableError: the database is away, or its schema is older or newer than this version's.
    """
    with database.read() as connection:
        if connection.dialect.name == "postgresql":  # it takes its time, and holds nothing that anybody waits for
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        return [*_migrations(), *list(_schema(connection))[:_TOLD], *wrong_counters(connection)]


def _migrations() -> Iterator[str]:
    heads = ScriptDirectory(str(FOLDER)).get_heads()
    if heads != [HEAD]:
        yield f"The migrations end in {', '.join(heads)}, and not in {HEAD} alone."


def _schema(connection: Connection) -> Iterator[str]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    for difference in compare_metadata(context, metadata):
        yield f"The schema differs from the models: {difference}."


def wrong_counters(connection: Connection) -> list[str]:
    """Return a sentence for every counter that is not what the rows say."""
    return [*_jobs(connection), *_waiting(connection), *_blocks(connection)]


def _jobs(connection: Connection) -> Iterator[str]:
    """Compare how many tasks a job says it has, in all and by state, with its tasks."""
    counted = {column: task.c.state == state for state, column in COUNTERS.items()}
    discovery = {"discovering": DISCOVERING, "discovered": DISCOVERED}
    counted |= {column: task.c.discovers & task.c.state.in_(states) for column, states in discovery.items()}
    numbers = (_number(condition).label(column) for column, condition in counted.items())
    found = select(task.c.job_id, func.count().label("total"), *numbers).group_by(task.c.job_id).subquery()
    told = ["total", *counted]
    wrong = [job.c[name] != func.coalesce(found.c[name], 0) for name in told]
    rows = connection.execute(
        select(job.c.id, *(job.c[name] for name in told), *(found.c[name].label(f"found_{name}") for name in told))
        .join_from(job, found, found.c.job_id == job.c.id, isouter=True)
        .where(or_(*wrong))
        .order_by(job.c.id)
        .limit(_TOLD)
    )
    for row in rows:
        yield f"Job {row.id} says that it has {_differences(row, told)}."


def _differences(row: Row[*tuple[object, ...]], told: list[str]) -> str:
    values = row._asdict()
    kinds = {column: f" {state}" for state, column in COUNTERS.items()} | {
        "discovering": " discovering",
        "discovered": " discovered",
    }
    return "; ".join(
        f"{values[name]}{kinds.get(name, '')} tasks, where there are {values[f'found_{name}'] or 0}"
        for name in told
        if values[name] != (values[f"found_{name}"] or 0)
    )


def _waiting(connection: Connection) -> Iterator[str]:
    """Compare for how many others a job says that it waits with what it waits for."""
    unmet = _children(prerequisite.c.job_id, prerequisite.c.met_at.is_(None))
    found = func.coalesce(unmet.c.number, 0)
    rows = connection.execute(
        select(job.c.id, job.c.unmet, found.label("found"))
        .join_from(job, unmet, unmet.c.parent == job.c.id, isouter=True)
        .where(job.c.unmet != found)
        .order_by(job.c.id)
        .limit(_TOLD)
    )
    for row in rows:
        yield f"Job {row.id} says that it waits for {row.unmet} other jobs, where it waits for {row.found}."


def _blocks(connection: Connection) -> Iterator[str]:
    """Compare how many children of a block have not ended well with its tasks, and the blocks in it.

    While tasks of a job are reset, in batches, its blocks are not counted: they are, anew, after the last batch.
    """
    inner = block.alias("inner")
    tasks = _children(task.c.block_id, task.c.state.not_in(WELL))
    blocks = _children(inner.c.parent_id, inner.c.remaining > 0)
    found = func.coalesce(tasks.c.number, 0) + func.coalesce(blocks.c.number, 0)
    rows = connection.execute(
        select(block.c.id, block.c.job_id, block.c.remaining, found.label("found"))
        .join_from(block, tasks, tasks.c.parent == block.c.id, isouter=True)
        .join(blocks, blocks.c.parent == block.c.id, isouter=True)
        .join(job, job.c.id == block.c.job_id)
        .where(block.c.remaining != found, job.c.state != JobState.REQUEUEING)
        .order_by(block.c.id)
        .limit(_TOLD)
    )
    for row in rows:
        yield (
            f"Block {row.id} of job {row.job_id} waits for {row.remaining} of its children, where {row.found} have not"
            " ended well."
        )


def _children(parent: ColumnElement[str], condition: ColumnElement[bool]) -> Subquery:
    return select(parent.label("parent"), _number(condition).label("number")).group_by(parent).subquery()


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=literal(0)))

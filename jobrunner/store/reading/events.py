"""How many of the events that came have moved nothing."""

from sqlalchemy import Connection, func, literal_column, select

from jobrunner.records import Standing
from jobrunner.store.schema import attempt, rejected_event


def rejected_number(connection: Connection) -> int:
    """Return how many rows tell of events that could not be folded."""
    return connection.execute(select(func.count()).select_from(rejected_event)).scalar_one()


def foreign_number(connection: Connection) -> int:
    """Return how many executions tell of an end that their process had nothing to do with (A5)."""
    # A number, not a parameter: as it stands in the partial index.
    foreign = attempt.c.standing == literal_column(str(int(Standing.NONE))), attempt.c.outcome.is_not(None)
    return connection.execute(select(func.count()).select_from(attempt).where(*foreign)).scalar_one()

"""Which attempts are in the hands of a worker: conditions that the tracker and its readers share."""

from sqlalchemy import literal_column

from jobrunner.records import Standing
from jobrunner.states import TaskState
from jobrunner.store.schema import attempt

#: States of a task that an attempt may be about.
IN_HAND = (TaskState.QUEUED, TaskState.ACTIVE, TaskState.SOFT_FAILED)
#: Executions in the hands of their process; numbers as they stand in the partial index.
OPEN = attempt.c.standing.in_([literal_column(str(int(one))) for one in (Standing.RECEIVED, Standing.STARTED)])
#: Executions that another process has received since; should its gate refuse them, they count as received again.
PASSED_ON = (attempt.c.standing == literal_column(str(int(Standing.NONE)))) & attempt.c.received_at.is_not(None)

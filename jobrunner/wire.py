"""What crosses between tracker, workers and clients on the broker: names and versions.

Only names live here. `workers` and `tracker` share this module so that neither needs to import the other.
"""

from typing import Final, NotRequired, TypeAlias, TypedDict

#: Version of task header and event batches; a reader refuses what is newer than it knows.
VERSION: Final = 1

#: The message header that marks a task as one of a job.
HEADER: Final = "jobrunner"

#: The message header that says of which run of its job a message is that a task has sent, or Celery for it.
RUN_HEADER: Final = "jobrunner_run"

#: Events of a worker's gate: a task was not started; a version of the snapshot holds from here on.
TASK_HELD: Final = "task-held"
SNAPSHOT_APPLIED: Final = "snapshot-applied"

#: Event of a task that says how far it is (C2).
TASK_PROGRESS: Final = "task-progress"

#: Events of a task: what came of its work, and what it has logged and printed.
TASK_STATED: Final = "task-stated"
TASK_LOGGED: Final = "task-logged"

#: The message header that marks what goes to Celery's exchange for monitors alone: the tracker knows it already.
COPY: Final = "jobrunner"

#: Key of the event log, a Redis stream. One entry is one batch of events of one process.
EVENT_LOG: Final = "jobrunner:events"

#: Seconds of silence after which a process begins a new series of batches; and after which one is forgotten, which is
#: much longer, because batches may wait for a broker.
SERIES_PAUSE: Final = 3_600.0
SERIES_FORGOTTEN: Final = 24 * SERIES_PAUSE

#: Result-backend key of a list of inputs that is too long for a header.
INPUTS_KEY: Final = "jobrunner-inputs-"

#: Result-backend key of the list of items that alone a task is to process.
ITEMS_KEY: Final = "jobrunner-items-"

#: Ids of values that a message header may carry; longer lists go under `INPUTS_KEY` (RabbitMQ drops a message whose
#: header exceeds a frame, 128 kB, without an error).
INPUTS_IN_HEADER: Final = 100

#: Field of `task-failed` if what the task takes was no longer in the result backend: the Celery ids of the values; none
#: if the list of them is lost.
LOST: Final = "lost"

#: Workers that a message names because they have failed its task: the last ones.
MOST_AVOIDED: Final = 3
#: Field of `task-cancelled` if the worker is shut down without waiting for what runs: nobody has the message any more.
SHUT_DOWN: Final = "shut_down"

#: In the place of a Celery id: the task was skipped, and its value is None.
NOTHING: Final = ""

Inputs: TypeAlias = str | list["Inputs"]
"""Where a value comes from: a Celery id, or a list of such for the value of a group, nested as the groups are."""


class TaskHeader(TypedDict):
    """The `jobrunner` header of a task message."""

    v: int
    task: str
    run: int
    delivery: int
    #: What the tracker has published at once, and the retries with which it did: a message with more is Celery's retry.
    batch: NotRequired[str]
    first: NotRequired[int]
    inputs: NotRequired[Inputs]
    inputs_key: NotRequired[str]
    #: Where the items lie that take the place of what it takes, of which `inputs` is left, or of its first argument.
    items_key: NotRequired[str]
    #: Workers that have failed it: they hand it back, as long as others live.
    avoid: NotRequired[list[str]]

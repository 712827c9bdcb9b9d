"""What a running task adds to its job: how it travels in events, from a worker that makes it to the tracker.

Blocks, tasks and their messages are made as at submission, routed, serialized and checked, and told in parts that fit
into an event. The last part says how many tasks there are, so that an addition of which something was lost is noticed.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from celery import Celery
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, NonNegativeInt

from jobrunner import ids
from jobrunner.envelope import Envelopes
from jobrunner.errors import InvalidCanvasError
from jobrunner.message import check_task, message_of
from jobrunner.plan import Place, Plan, grow
from jobrunner.submit import block_row, ids_chosen, taken, task_row
from jobrunner.text import NAME

#: Tasks that one event tells of: with small arguments some 250 kB; and bytes of their messages, roughly, beyond which
#: it tells of fewer.
_TASKS = 200
_BYTES = 1_000_000


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class AddedMessage(_Told):
    """The columns of table `message`."""

    body: Base64Bytes
    content_type: str
    content_encoding: str
    headers: str
    properties: str


class AddedTask(_Told):
    """Columns of table `task`; `sequence` counts from the creator's, 1 being the next level."""

    id: str = Field(max_length=NAME)
    name: str = Field(max_length=NAME)
    queue: str = Field(max_length=NAME)
    sequence: NonNegativeInt
    block_id: str
    position: NonNegativeInt
    opens_block: str
    opens_at: NonNegativeInt
    takes_task: str | None
    takes_group: str | None
    yields_group: str | None
    yields_at: int | None
    countdown: float | None
    not_before: datetime | None
    discovers: bool
    replayable: bool
    skip_empty: bool = False
    max_retries: int | None = None
    untouched_timeout: float | None = None
    message: AddedMessage


class AddedBlock(_Told):
    """Columns of table `block`."""

    id: str
    kind: str
    parent_id: str | None
    position: NonNegativeInt
    size: NonNegativeInt
    yields_group: str | None
    yields_at: int | None


class Part(_Told):
    """One event's worth of an addition, which is named after its outermost block.

    `chain` and `group` are the blocks that will take the creator's place: it, and then all that it has added. `total`
    is in the last part alone.
    """

    addition: str = Field(max_length=NAME)
    chain: str = Field(max_length=NAME)
    group: str = Field(max_length=NAME)
    expands: bool
    value_task: str | None
    value_group: str | None
    blocks: list[AddedBlock]
    tasks: list[AddedTask]
    total: NonNegativeInt | None


def parts(app: Celery, canvas: object, *, chain: str, group: str, number: int, expands: bool) -> Iterator[Part]:
    """Yield a canvas as parts of the addition with this number, from 0, of an attempt.

    If it `expands` its creator, its value will be the creator's, and somebody may take that.

    Raises:
        InvalidCanvasError: it is no canvas, or one of its tasks cannot be sent; before anything is yielded.
    """
    plan = grow(canvas, place=Place(group, number), opens=Place(chain, 1), new_id=ids.uuid7)
    _refuse_chosen_ids(plan)
    tasks = _tasks(app, plan, expands=expands)
    blocks = [AddedBlock(**block_row(plan, block)) for block in plan.blocks]
    told = 0
    for some in _fitting(tasks):
        yield Part(
            addition=plan.job_id,
            chain=chain,
            group=group,
            expands=expands,
            value_task=plan.value.task if plan.value else None,
            value_group=plan.value.group if plan.value else None,
            blocks=[] if told else blocks,
            tasks=some,
            total=len(tasks) if told + len(some) == len(tasks) else None,
        )
        told += len(some)


def _refuse_chosen_ids(plan: Plan) -> None:
    """Refuse ids of the caller's: the next attempt adds them again while those of this one may still be there."""
    for task_id, path in ids_chosen(plan).items():
        msg = f"its task_id {task_id!r} is chosen, and another attempt would add a task of the same id."
        raise InvalidCanvasError(msg, "Leave the ids of what a task adds to jobrunner.", path=path)


def _fitting(tasks: Sequence[AddedTask]) -> Iterator[list[AddedTask]]:
    """Yield tasks in lists that fit into an event; at least one, be it empty."""
    part: list[AddedTask] = []
    size = 0
    for one in tasks:
        length = len(one.message.body) + len(one.message.headers)
        if part and (len(part) == _TASKS or size + length > _BYTES):
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    yield part


def _tasks(app: Celery, plan: Plan, *, expands: bool) -> list[AddedTask]:
    envelopes, needed = Envelopes(app), taken(plan, value=expands)
    tasks = []
    for arrival, leaf in enumerate(plan.leaves):
        message = message_of(envelopes, check_task(app, leaf), leaf, is_taken=leaf.id in needed)
        # Not validated: it is made here, of parts that were checked.
        told = AddedMessage.model_construct(**message.row(leaf.id))
        tasks.append(AddedTask.model_construct(**task_row(plan, leaf, arrival, message), message=told))
    return tasks

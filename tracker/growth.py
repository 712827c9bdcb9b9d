"""What tasks add to their jobs: it stands in rows at once, runs when its creator has succeeded, or is deleted.

An addition belongs to one attempt of its creator. As long as that is open, its tasks are pending behind a place that
opens nowhere. When the attempt succeeds, a chain takes the creator's place in the plan: the creator, and then a group
of all that it has added; so whatever waits for the creator waits for these too. When it ends in any other way, or
another one succeeds, the rows go (A3, A4).
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jobrunner.additions import AddedTask, Part
from jobrunner.records import Addition, Attempt, AttemptKey, Creator, Gone, HistoryLine, Standing, Task
from jobrunner.states import ENDED_TASK, WELL, TaskState
from jobrunner.store import tracking
from tracker.fold import Event, deciding, delivery_of, of_delivery

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

TASK_ADDED = "task-added"

#: Executions that have ended without success. One of which nothing was told yet may well have started.
_FAILED = frozenset(
    {Standing.LOST, Standing.HANDED_BACK, Standing.DROPPED, Standing.RETRIED, Standing.REVOKED, Standing.FAILED}
)


def stage(connection: "Connection", events: Sequence[Event], tasks: Mapping[str, Task]) -> Counter[str]:
    """Write what events tell of additions, and return how many tasks join each job; parts told twice count once."""
    told = [_Piece.of(event, tasks[event.uuid]) for event in events if event.type == TASK_ADDED and event.uuid in tasks]
    told = [piece for piece in told if piece.may_count]
    if not told:
        return Counter()
    known = tracking.additions_by_id(connection, {piece.part.addition for piece in told})
    taken = tracking.known_ids(
        connection,
        {task.id for piece in told for task in piece.part.tasks},
        {block.id for piece in told for block in piece.part.blocks},
    )
    staging = _Staging(
        creators=tracking.creators(connection, {piece.task.id for piece in told}),
        arrivals=tracking.next_arrivals(connection, {piece.task.job_id for piece in told}),
        taken=taken,
        additions=dict(known),
    )
    for piece in told:
        staging.add(piece)
    tracking.insert_added(connection, staging.blocks, staging.tasks, staging.messages)
    tracking.save_additions(
        connection,
        [one for id_, one in staging.additions.items() if id_ not in known],
        [one for id_, one in staging.additions.items() if id_ in known and one != known[id_]],
    )
    return staging.joined


def torn_attempts(connection: "Connection", task_ids: Collection[str]) -> dict[str, set[AttemptKey]]:
    """Return the attempts of these tasks that must not succeed: a part of what they have added is missing."""
    torn: defaultdict[str, set[AttemptKey]] = defaultdict(set)
    additions = tracking.unkept_additions(connection, task_ids)
    last = _last_chains(additions)
    for one in additions:
        if not one.is_whole and one.chain_id == last[one.task_id, one.attempt]:
            torn[one.task_id].add(one.attempt)
    return torn


def _last_chains(additions: Iterable[Addition]) -> dict[tuple[str, AttemptKey], str]:
    """Return the chain of the last execution in each attempt: a process may get again what it has handed back."""
    last: dict[tuple[str, AttemptKey], str] = {}
    for one in additions:
        key = one.task_id, one.attempt
        last[key] = max(last.get(key, ""), one.chain_id)  # ids ascend
    return last


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of an addition, and the task and attempt that have told it."""

    part: Part
    task: Task
    delivery: int
    retries: int
    process: str

    @classmethod
    def of(cls, event: Event, task: Task) -> "_Piece":
        part = Part.model_validate(event.fields.get("part"))
        return cls(part, task, delivery_of(task, event.uuid), event.retries or 0, event.process)

    @property
    def may_count(self) -> bool:
        """Whether its attempt may succeed, or turn out to have succeeded although the task was given up."""
        return bool(self.task.block_id) and self.delivery == self.task.delivery and self.task.state not in WELL


@dataclass(slots=True, kw_only=True)
class _Staging:
    """Collects the rows of many parts."""

    creators: Mapping[str, Creator]
    arrivals: dict[str, int]
    taken: set[str]
    additions: dict[str, Addition]
    joined: Counter[str] = field(default_factory=Counter)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def add(self, piece: _Piece) -> None:
        part, task = piece.part, piece.task
        addition = self.additions.get(part.addition) or Addition(
            id=part.addition, job_id=task.job_id, task_id=task.id, delivery=piece.delivery, retries=piece.retries,
            process=piece.process, chain_id=part.chain, group_id=part.group, tasks=0, told=None, expands=part.expands,
            value_task=part.value_task, value_group=part.value_group,
            kept=False if task.state in ENDED_TASK else None,  # too late: if it was a success, it is torn
        )  # fmt: skip
        self.additions[part.addition] = addition
        if addition.kept is False:
            return
        fixed = {"job_id": task.job_id, "addition_id": addition.id}
        new = [one for one in part.tasks if one.id not in self.taken]
        self.blocks += [dict(one) | {"remaining": one.size} | fixed for one in part.blocks if one.id not in self.taken]
        for one in new:
            self._add_task(one, addition)
        self.taken |= {block.id for block in part.blocks} | {added.id for added in new}
        self.additions[part.addition] = replace(
            addition, tasks=addition.tasks + len(new), told=addition.told if part.total is None else part.total
        )

    def _add_task(self, added: AddedTask, addition: Addition) -> None:
        creator = self.creators[addition.task_id]
        waits = f"{creator.name} [{creator.id}], which has added it, has not ended"
        columns = dict(added)
        message = dict(columns.pop("message"))  # as it is: a dump would be base64 again
        self.tasks.append(
            columns
            | {
                "job_id": addition.job_id,
                "celery_id": added.id,
                "arrival": self.arrivals[addition.job_id],
                "sequence": creator.sequence + added.sequence,
                "created_by": addition.task_id,
                "addition_id": addition.id,
                "state": TaskState.PENDING,
                "note": waits if added.opens_block == addition.chain_id else None,
                "delivery": 0,
                "first_retries": 0,
            }
        )
        self.messages.append({"task_id": added.id, **message})
        self.arrivals[addition.job_id] += 1
        self.joined[addition.job_id] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which additions are kept and which deleted, of tasks that have ended or will be attempted again."""

    kept: Sequence[Addition]
    deleted: Sequence[Addition]


def decide(tasks: Mapping[str, Task], additions: Iterable[Addition], attempts: Iterable[Attempt]) -> Decision:
    """Decide about additions of these tasks by the attempts that have made them. Pure."""
    histories: defaultdict[str, list[Attempt]] = defaultdict(list)
    for one in attempts:
        histories[one.task_id].append(one)
    kept, deleted = [], []
    additions = list(additions)
    last = _last_chains(additions)
    for addition in additions:
        task = tasks[addition.task_id]
        present = of_delivery(task.delivery, histories[task.id])
        decider = deciding(present)
        is_last = addition.chain_id == last[task.id, addition.attempt]
        if task.state in WELL and decider is not None and decider.key == addition.attempt and is_last:
            kept.append(addition)
        elif task.state in ENDED_TASK or _has_failed(addition, task, present):
            deleted.append(addition)
    return Decision(kept=kept, deleted=deleted)


def _has_failed(addition: Addition, task: Task, present: Iterable[Attempt]) -> bool:
    """Whether the attempt that has made it cannot succeed any more."""
    if addition.delivery != task.delivery:
        return True
    return any(one.key == addition.attempt and one.standing in _FAILED for one in present)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Tasks that have left their jobs, and the jobs of which levels have been joined by others."""

    gone: Sequence[Gone] = ()
    leveled: Collection[str] = ()


def settle(connection: "Connection", tasks: Mapping[str, Task], now: datetime) -> Settled:
    """Keep or delete what these tasks have added, and return whom that concerns; who has grown is moved."""
    additions = [one for one in tracking.unkept_additions(connection, tasks) if one.kept is None]
    if not additions:
        return Settled()
    decision = decide(tasks, additions, tracking.attempts_of(connection, {one.task_id for one in additions}))
    tracking.decide_additions(
        connection, {one.id: True for one in decision.kept} | {one.id: False for one in decision.deleted}
    )
    leveled = _graft(connection, tasks, decision.kept)
    return Settled(gone=_delete(connection, decision.deleted, now), leveled=leveled)


def _graft(connection: "Connection", tasks: Mapping[str, Task], kept: Collection[Addition]) -> set[str]:
    """Give additions their place in the plan, and creators the values of what they have expanded into.

    Return the jobs with a barrier that have grown: what joins a level may come after what has failed.
    """
    grown = [one for one in kept if one.tasks]
    creators = tracking.creators(connection, {one.task_id for one in grown})
    groups = Counter((one.task_id, one.chain_id, one.group_id) for one in grown if not creators[one.task_id].barrier)
    tracking.graft(
        connection, [(tasks[id_], chain_id, group_id, size) for (id_, chain_id, group_id), size in groups.items()]
    )
    leveled = [one for one in grown if creators[one.task_id].barrier]
    if leveled:
        tracking.graft_into_levels(connection, {one.id for one in leveled})
    tracking.move_values(connection, [one for one in kept if one.expands])
    return {one.job_id for one in leveled}


def _delete(connection: "Connection", deleted: Collection[Addition], now: datetime) -> Sequence[Gone]:
    if not deleted:
        return ()
    gone = tracking.count_added(connection, {one.id for one in deleted})
    tracking.delete_added(connection, {one.id for one in deleted})
    by_creator = Counter[str]()
    for one in deleted:
        by_creator[one.task_id] += one.tasks
    creators = tracking.creators(connection, by_creator)
    lines = [_line(creators[task_id], number, now) for task_id, number in by_creator.items() if number]
    tracking.insert_history(connection, lines)
    for told in lines:
        logger.info("Job %s: %s.", told.job_id, told.line, extra={"action": "additions-deleted", "job": told.job_id})
    return gone


def _line(creator: Creator, number: int, now: datetime) -> HistoryLine:
    what = "the task that" if number == 1 else f"{number:,} tasks that"
    line = f"deleted {what} {creator.name} [{creator.id}] had added: its attempt did not succeed"
    return HistoryLine(job_id=creator.job_id, task_id=creator.id, at=now, line=line)

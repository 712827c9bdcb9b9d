"""Writes `docs/states.md` from the states, their moves and the other systems' names for them.

Run as `python -m jobrunner.states_page > docs/states.md`; a test compares the file with `page()`.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar, get_args

from jobrunner.counterparts import Member, counterpart, ends_named
from jobrunner.event_types import ACTIVE_EVENTS, INACTIVE_EVENTS
from jobrunner.markdown import code, codes, table
from jobrunner.order_kinds import JOB_ORDERS, OBSERVED_ORDERS, TASK_ORDERS, OrderKind
from jobrunner.states import (
    ENDED_JOB,
    ENDED_TASK,
    JOB_CORRECTIONS,
    JOB_MOVES,
    OPEN_TASK,
    TASK_CORRECTIONS,
    TASK_MOVES,
    WELL,
    CancelReason,
    FailureReason,
    JobOutcome,
    JobState,
    SkipReason,
    TaskState,
    WorkerState,
)
from jobrunner.terminology import FOREIGN, System, Term

_State = TypeVar("_State", JobState, TaskState)
_SYSTEMS: tuple[System, ...] = get_args(System)
_ACTIVE = ", ".join(ACTIVE_EVENTS)
_INACTIVE = ", ".join(INACTIVE_EVENTS)

_INTRO = """\
<!-- Written by `python -m jobrunner.states_page`. Change the data in jobrunner instead. -->

# States

A job and each of its tasks are in exactly one state at any time. Only the tracker writes states: an operator's order
is stored first and applied by the tracker, and a worker tells what it did in events. What you read may therefore be a
moment old (N3). A move that is not listed here is refused, with the list of those that are allowed.

Codes such as F1 are the numbers of the requirements; `tests/seeds/` names its tests after them.
"""

_JOBS = """\
## Jobs

A job starts out `queued`, or `waiting` if prerequisites or a delay hold it, or `paused` if it was submitted so. Most go
from `queued` by `active` to `completed`. If several holds apply, `paused` shows before prerequisites, and these before
a delay.

An [*observed*](observed.md) job has no plan: it is `queued`, `active`, or has ended as far as anybody knows, and is
active again when another task of it becomes known.
"""

_REASONS = """\
### Why a job failed

A failed job has one of these reasons. A failed task may have one as well.
"""

_TASKS = """\
## Tasks

A task starts out `pending`. Most go from there by `ready`, `queued` and `active` to `completed`. The tracker may learn
of an end before it learns of the start, so `queued` leads to every end.
"""

_CANCELED = """\
### Why a task was canceled
"""

_SKIPPED = """\
### Why a task was skipped

A skipped task without a reason has found no work itself; its note says why.
"""

_ORDERS = """\
## Orders

An order is stored, applied by the tracker, and answered when what it asks for is so. In a state that does not take it,
it is refused, and the answer lists those that do. Where all is as ordered already, nothing changes, and that is well.
"""

_TAKES = """\
Which order a job or a task takes in which state (x):
"""

_WORKERS = """\
## Workers

`jobrunner workers` shows the workers that the tracker knows, in one of these states. One without jobrunner is *lossy*:
what it tells while no tracker listens is lost, and nothing that it has in its hands is sent again.
"""

_NAMES = """\
## Names in other systems

The requirements come from the documents of five systems, whose names for these states differ. Where one name stands for
several states of ours, that system does not tell them apart. The reasons and outcomes are those for which it has this
very name.
"""

_BACK = f"""\
### From our names to theirs

One name of each system. In brackets: it has no such notion, and this name comes nearest; for a reason that is the end
which it leads to there. Arvados and HySDS have no states of jobs, but of the tasks in them. HySDS knows a task by its
last Celery event, written here without the prefix `task-`. It calls the task active, with more to come, after
{_ACTIVE}, and inactive after {_INACTIVE} (H4).
"""


def page() -> str:
    """Return the whole page."""
    parts = [
        _INTRO,
        _JOBS,
        _drawing(JOB_MOVES, (JobState.QUEUED, JobState.WAITING, JobState.PAUSED), ENDED_JOB),
        _moves(JOB_MOVES),
        _sets({"ended": ENDED_JOB}, JobState),
        _REASONS,
        _meanings("reason", FailureReason),
        "A completed job says how, as its `outcome`:\n",
        _meanings("outcome", JobOutcome),
        _TASKS,
        _drawing(TASK_MOVES, (TaskState.PENDING,), ENDED_TASK),
        _moves(TASK_MOVES),
        _sets({"ended": ENDED_TASK, "ended well": WELL, "open": OPEN_TASK}, TaskState),
        _CANCELED,
        _meanings("reason", CancelReason),
        _SKIPPED,
        _meanings("reason", SkipReason),
        _corrections(),
        _ORDERS,
        _meanings("order", OrderKind),
        _TAKES,
        _takers("job state", JobState, JOB_ORDERS),
        _takers("task state", TaskState, TASK_ORDERS),
        f"An observed job takes {codes(one for one in OrderKind if one in OBSERVED_ORDERS)}, its tasks none.\n",
        _WORKERS,
        _meanings("state", WorkerState),
        _NAMES,
        "### From their names to ours\n",
        _terms(term for term in FOREIGN if term.kind != "word"),
        _BACK,
        _names("our job state", tuple(JobState)),
        _names("our task state", tuple(TaskState)),
        _names("why it failed", tuple(FailureReason)),
        _names("why it was canceled", tuple(CancelReason)),
        _names("how it completed", tuple(JobOutcome)),
        "### Words\n",
        _words(term for term in FOREIGN if term.kind == "word"),
    ]
    return "\n".join(parts)


def _drawing(moves: Mapping[_State, frozenset[_State]], starts: Iterable[_State], ends: Collection[_State]) -> str:
    """Return the moves as a drawing, which GitHub shows; a name in it has no hyphen, but what is shown has."""
    lines: list[str] = [f'state "{state}" as {_node(state)}' for state in moves if "-" in state]
    lines += [f"[*] --> {_node(state)}" for state in starts]
    lines += [f"{_node(old)} --> {_node(new)}" for old in moves for new in moves if new in moves[old]]
    lines += [f"{_node(state)} --> [*]" for state in moves if state in ends]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```", ""])


def _node(state: str) -> str:
    return state.replace("-", "_")


def _moves(moves: Mapping[_State, frozenset[_State]]) -> str:
    rows = ((code(state), state.__doc__ or "", codes(s for s in moves if s in moves[state])) for state in moves)
    return table(("state", "meaning, and who moves it on", "leaves to"), rows)


def _meanings(head: str, members: Iterable[StrEnum]) -> str:
    return table((head, "meaning"), ((code(member), member.__doc__ or "") for member in members))


def _takers(head: str, states: Iterable[_State], orders: Mapping[OrderKind, frozenset[_State]]) -> str:
    def row(state: _State) -> list[str]:
        return [code(state), *("x" if state in takers else "" for takers in orders.values())]

    return table((head, *(code(kind) for kind in orders)), (row(state) for state in states))


def _corrections() -> str:
    """Return where ends lead that events correct."""
    rows = ((code(old), codes(new for new in TaskState if new in TASK_CORRECTIONS[old])) for old in TASK_CORRECTIONS)
    told = table(("an end that events have told", "is corrected to"), rows)
    return f"""\
Events may come late: when another execution of a task turns out to run or to have ended stronger, its end is corrected,
as if the events had come in time, and its job goes on ({codes(JOB_CORRECTIONS)} to {code(JobState.ACTIVE)}).

{told}"""


def _sets(sets: Mapping[str, frozenset[_State]], states: type[_State]) -> str:
    lines = (f"* {name}: {codes(state for state in states if state in members)}" for name, members in sets.items())
    return "\n".join(lines) + "\n"


def _terms(terms: Iterable[Term]) -> str:
    rows = (
        (t.system, t.kind, code(t.name), codes(t.ours), codes(dict.fromkeys(ends_named(t))), t.seed, t.note)
        for t in terms
    )
    return table(("system", "kind", "their name", "our state", "our reasons and outcomes", "from", "note"), rows)


def _words(terms: Iterable[Term]) -> str:
    rows = ((t.system, code(t.name), codes(t.ours), t.seed, t.note) for t in terms)
    return table(("system", "their word", "our word", "from", "note"), rows)


def _names(head: str, members: Sequence[Member]) -> str:
    rows = ((code(member), *(_name(system, member) for system in _SYSTEMS)) for member in members)
    return table((head, *_SYSTEMS), rows)


def _name(system: System, member: Member) -> str:
    found = counterpart(system, member)
    return f"({code(found.name)})" if found.nearest else code(found.name)


if __name__ == "__main__":
    sys.stdout.write(page())

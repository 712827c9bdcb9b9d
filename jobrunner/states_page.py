"""Writes `docs/states.md` from the states, their moves and the other systems' names for them.

Run as `python -m jobrunner.states_page > docs/states.md`; a test compares the file with `page()`.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, get_args

from jobrunner.event_types import ACTIVE_EVENTS, INACTIVE_EVENTS
from jobrunner.markdown import code, codes, table
from jobrunner.states import (
    ENDED_JOB,
    ENDED_TASK,
    JOB_CORRECTIONS,
    JOB_MOVES,
    OPEN_TASK,
    TASK_CORRECTIONS,
    TASK_MOVES,
    WELL,
    FailureReason,
    JobOutcome,
    JobState,
    TaskState,
    WorkerState,
)
from jobrunner.terminology import FOREIGN, System, Term, theirs

_State = TypeVar("_State", JobState, TaskState)
_SYSTEMS: tuple[System, ...] = get_args(System)
_ACTIVE = ", ".join(ACTIVE_EVENTS)
_INACTIVE = ", ".join(INACTIVE_EVENTS)

_INTRO = """\
<!-- Written by `python -m jobrunner.states_page`. Change jobrunner/states.py or jobrunner/terminology.py instead. -->

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

_WORKERS = """\
## Workers

`jobrunner workers` shows the workers that the tracker knows, in one of these states. One without jobrunner is *lossy*:
what it tells while no tracker listens is lost, and nothing that it has in its hands is sent again.
"""

_NAMES = """\
## Names in other systems

The requirements come from the documents of five systems, whose names for these states differ. Where one name stands for
several states of ours, that system does not tell them apart.
"""

_BACK = f"""\
### From our names to theirs

A dash means that the system has no such state. HySDS knows a task by its last Celery event, written here without the
prefix `task-`. It calls the task active, with more to come, after {_ACTIVE}, and inactive after {_INACTIVE} (H4).
"""


def page() -> str:
    """Return the whole page."""
    parts = [
        _INTRO,
        _JOBS,
        _moves(JOB_MOVES),
        _sets({"ended": ENDED_JOB}, JobState),
        _REASONS,
        table(("reason", "meaning"), ((code(reason), reason.__doc__ or "") for reason in FailureReason)),
        "A completed job says how, as its `outcome`:\n",
        table(("outcome", "meaning"), ((code(outcome), outcome.__doc__ or "") for outcome in JobOutcome)),
        _TASKS,
        _moves(TASK_MOVES),
        _sets({"ended": ENDED_TASK, "ended well": WELL, "open": OPEN_TASK}, TaskState),
        _corrections(),
        _WORKERS,
        table(("state", "meaning"), ((code(state), state.__doc__ or "") for state in WorkerState)),
        _NAMES,
        "### From their names to ours\n",
        _terms(term for term in FOREIGN if term.kind != "word"),
        _BACK,
        _names("our job state", tuple(JobState)),
        _names("our task state", tuple(TaskState)),
        "### Words\n",
        _words(term for term in FOREIGN if term.kind == "word"),
    ]
    return "\n".join(parts)


def _moves(moves: Mapping[_State, frozenset[_State]]) -> str:
    rows = ((code(state), state.__doc__ or "", codes(s for s in moves if s in moves[state])) for state in moves)
    return table(("state", "meaning, and who moves it on", "leaves to"), rows)


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
    rows = ((t.system, t.kind, code(t.name), codes(t.ours), t.seed, t.note) for t in terms)
    return table(("system", "kind", "their name", "our name", "from", "note"), rows)


def _words(terms: Iterable[Term]) -> str:
    rows = ((t.system, code(t.name), codes(t.ours), t.seed, t.note) for t in terms)
    return table(("system", "their word", "our word", "from", "note"), rows)


def _names(head: str, states: Sequence[JobState | TaskState]) -> str:
    # A system that has no name for any of these states gets no column.
    columns = [system for system in _SYSTEMS if any(theirs(system, state) for state in states)]
    rows = ((code(state), *(codes(theirs(system, state)) for system in columns)) for state in states)
    return table((head, *columns), rows)


if __name__ == "__main__":
    sys.stdout.write(page())

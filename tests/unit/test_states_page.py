"""The page of states, and the tables of names in other systems that it shows: nothing is missing from them."""

import re
from enum import StrEnum
from pathlib import Path
from typing import get_args

import pytest

from jobrunner.counterparts import Member, counterpart, ends_named
from jobrunner.event_types import ACTIVE_EVENTS, INACTIVE_EVENTS
from jobrunner.order_kinds import JOB_ORDERS, TASK_ORDERS, OrderKind
from jobrunner.states import JOB_MOVES, TASK_MOVES, CancelReason, FailureReason, JobOutcome, JobState, TaskState
from jobrunner.states_page import page
from jobrunner.terminology import FOREIGN, System, ours, theirs

SYSTEMS: tuple[System, ...] = get_args(System)
MEMBERS: list[Member] = [*JobState, *TaskState, *FailureReason, *CancelReason, *JobOutcome]

# Copied from the documents of the five systems by hand, on purpose: what they call a state, an event or a thing.
THEIR_NAMES = {
    "Arvados": """
        job task, parameters, deleted, progress, complete, temporary failure, step, sequence, success, success = null,
        success = true, success = false, qsequence, created_by_job_task_uuid, job manager
    """,
    "Flamenco": """
        under-construction, preparing, queued, active, completed, failed, cancel-requested, canceled, requeueing,
        paused, soft-failed
    """,
    "CAF": """
        job tracking worker, job database, task messages, progress, progress messages, tracking pipe, cancellation,
        forwarded, dependencies, completed, failed, dependents, PROPAGATE_FAILURES
    """,
    "Ngenea Hub": """
        Pending, discovery task, Started, Success, Failure, Pausing, Paused, resumed, Cancelled, Dequeuing, Error,
        structured output, Skipped
    """,
    "HySDS": """
        task, job, sent, received, started, succeeded, failed, revoked, retried, retired, active, inactive
    """,
}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _drawn(text: str) -> list[set[tuple[str, str]]]:
    """Return the arrows of each drawing of the page, without those from and to its outside."""
    drawings = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
    return [
        {(old.replace("_", "-"), new.replace("_", "-")) for old, new in re.findall(r"(\w+) --> (\w+)", drawing)}
        for drawing in drawings
    ]


def test_the_page_in_docs_is_the_generated_one() -> None:
    written = Path(__file__).parents[2] / "docs" / "states.md"
    remedy = "run: python -m jobrunner.states_page > docs/states.md"
    assert written.read_text(encoding="utf-8") == page(), remedy


def test_both_machines_are_drawn_with_every_move_and_no_other() -> None:
    assert _drawn(page()) == [
        {(str(old), str(new)) for old, targets in JOB_MOVES.items() for new in targets},
        {(str(old), str(new)) for old, targets in TASK_MOVES.items() for new in targets},
    ]


@pytest.mark.parametrize("kind", OrderKind)
def test_the_page_says_what_an_order_does_and_who_takes_it_in_which_state(kind: OrderKind) -> None:
    assert f"| `{kind}` | {kind.__doc__} |" in page()
    for orders, head in ((JOB_ORDERS, "job state"), (TASK_ORDERS, "task state")):
        rows = page().partition(f"| {head} | `")[2].splitlines()[2 : 2 + len(JobState if "job" in head else TaskState)]
        takers = {str(state) for state in orders.get(kind, ())}
        if takers:
            at = list(orders).index(kind) + 2
            assert {cells[1].strip(" `") for row in rows if (cells := row.split("|"))[at].strip() == "x"} == takers


@pytest.mark.parametrize(("system", "name"), [(one, name) for one in SYSTEMS for name in _names(THEIR_NAMES[one])])
def test_every_name_of_a_system_leads_to_ours(system: System, name: str) -> None:
    found = [term for term in FOREIGN if (term.system, term.name) == (system, name)]
    assert found
    for term in found:
        assert re.search(rf"^\| {system} \|.* `{re.escape(name)}` \| .*`{term.ours[0]}`", page(), re.MULTILINE)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("member", MEMBERS, ids=repr)
def test_everything_of_ours_has_one_name_in_each_system_or_a_nearest_one(member: Member, system: System) -> None:
    found = counterpart(system, member)
    assert any((term.system, term.name) == (system, found.name) for term in FOREIGN)
    if isinstance(member, JobState | TaskState):
        names = theirs(system, member)
        assert found.nearest is not bool(names)
        assert found.nearest or found.name in names


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("member", [*FailureReason, *CancelReason, *JobOutcome], ids=repr)
def test_a_reason_that_a_system_knows_is_found_back_from_its_name(
    member: FailureReason | CancelReason | JobOutcome, system: System
) -> None:
    found = counterpart(system, member)
    back = [
        one
        for term in FOREIGN
        if (term.system, term.name) == (system, found.name) and term.kind != "word"
        for one in ends_named(term)
        if isinstance(one, type(member))
    ]
    assert (member in back) is not found.nearest


def test_retired_is_retried() -> None:
    assert ours("HySDS", "event", "retired") == ours("HySDS", "event", "retried") == (TaskState.SOFT_FAILED,)


def test_a_task_that_flamenco_calls_paused_is_ready_with_us() -> None:
    assert ours("Flamenco", "task", "paused") == (TaskState.READY,)
    assert theirs("Flamenco", TaskState.PENDING) == ()


def test_a_name_stands_once_in_the_table_of_names() -> None:
    keys = [(term.system, term.kind, term.name) for term in FOREIGN]
    assert len(keys) == len(set(keys))


def test_names_lead_to_states_of_their_kind_and_back() -> None:
    types: dict[str, type[StrEnum]] = {"job": JobState, "task": TaskState, "event": TaskState}
    for term in FOREIGN:
        assert term.ours
        assert ours(term.system, term.kind, term.name) == term.ours
        for state in term.ours:
            if term.kind == "word":
                assert not isinstance(state, StrEnum)
            else:
                assert isinstance(state, types[term.kind])
                assert isinstance(state, JobState | TaskState)
                assert term.name in theirs(term.system, state)


def test_a_name_that_a_system_lacks_leads_nowhere() -> None:
    assert ours("Flamenco", "job", "soft-failed") == ()
    assert theirs("Flamenco", JobState.WAITING) == ()


def test_every_event_that_is_active_or_inactive_is_in_the_table() -> None:
    assert all(ours("HySDS", "event", event) for event in ACTIVE_EVENTS + INACTIVE_EVENTS)

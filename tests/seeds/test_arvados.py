"""What Arvados says of job tasks (A), as far as states, moves and a running house show it."""

from pathlib import Path

import pytest
from celery import chain, chord, group
from kombu.serialization import loads
from sqlalchemy import select

from jobrunner.states import TASK_MOVES, JobState, TaskState, success
from jobrunner.store import reading, schema
from jobrunner.store.reading import TaskView
from jobrunner.terminology import ours
from tests.apps import new_runner, store
from tests.builders import MIDNIGHT, event
from tests.house import PATIENCE, House
from tests.waiting import until
from tracker.fold import Event
from tracker.folding import fold
from tracker.sending import take_ready
from tracker.turn import Turn


def test_a1_a_job_task_is_a_well_defined_independently_computable_portion_of_a_job(running: House) -> None:
    """What its message says, and the values that it takes, are all it needs: here, alone, and in another order."""
    job = running.jobs.submit(chord([running.proj.add.s(1, 2), running.proj.add.s(3, 4)], running.proj.total.s()))
    assert job.result(PATIENCE) == 10
    one, other, last = job.tasks()

    def alone(task: TaskView, *taken: object) -> object:
        with running.jobs.database.read() as connection:
            row = connection.execute(select(schema.message).where(schema.message.c.task_id == task.id)).one()
        args, kwargs, _ = loads(row.body, row.content_type, row.content_encoding)
        return running.app.tasks[task.name](*taken, *args, **kwargs)

    assert (alone(other), alone(one), alone(last, [3, 7])) == (7, 3, 10)
    assert [running.app.AsyncResult(task.celery_id).result for task in (other, one, last)] == [7, 3, 10]


@pytest.mark.parametrize("state", ["pending", "ready", "queued", "active", "soft-failed", "canceled"])
def test_a9_success_is_null_while_the_task_has_neither_completed_successfully_nor_failed_permanently(
    state: str,
) -> None:
    assert success(TaskState(state)) is None


@pytest.mark.parametrize("state", ["completed", "partial", "skipped"])
def test_a9_success_is_true_when_the_task_has_ended_well(state: str) -> None:
    assert success(TaskState(state)) is True


def test_a9_success_is_false_when_the_task_has_failed_permanently() -> None:
    assert success(TaskState.FAILED) is False


def test_a9_a_value_of_success_stands_for_the_states_that_have_it() -> None:
    for name, value in (("success = null", None), ("success = true", True), ("success = false", False)):
        assert ours("Arvados", "task", name) == tuple(state for state in TaskState if success(state) is value)


def test_a2_when_a_job_starts_it_is_seeded_with_a_task_with_sequence_0_and_an_empty_parameters_list(
    running: House,
) -> None:
    job = running.jobs.submit(running.proj.who_am_i.s())
    assert job.wait(PATIENCE) is JobState.COMPLETED
    (seed,) = running.ask("tasks", job.id, "--json").json
    assert (seed["sequence"], seed["arrival"], seed["parameters"], seed["created_by"]) == (0, 0, {}, None)
    assert (seed["success"], seed["progress"]) == (True, 1.0)


def test_a3_additional_tasks_are_not_performed_until_their_creator_is_complete() -> None:
    assert not {TaskState.QUEUED, TaskState.ACTIVE} & TASK_MOVES[TaskState.PENDING]


def test_a3_a_task_can_create_additional_tasks_which_belong_to_the_same_job_and_wait_until_it_is_complete(
    running: House,
) -> None:
    gate, path = running.gate("complete"), running.path("b c d")
    job = running.jobs.submit(running.proj.add_children_and_wait.si(3, path, str(gate)))
    until(lambda: job.view.total == 4, timeout=PATIENCE, what="the additional tasks to be known")
    creator, *additional = job.tasks()
    assert [(one.state, one.job_id, one.created_by) for one in additional] == [("pending", job.id, creator.id)] * 3
    assert {one.note for one in additional} == {f"{creator.name} [{creator.id}], which has added it, has not ended"}
    assert running.lines("b c d") == []
    gate.open()
    assert job.wait(PATIENCE) is JobState.COMPLETED
    assert len(running.lines("b c d")) == 3
    ended = job.tasks()
    assert all(one.started_at >= ended[0].ended_at for one in ended[1:] if one.started_at and ended[0].ended_at)


def test_a4_if_a_task_fails_what_it_has_created_is_deleted(running: House) -> None:
    path = running.path("deleted")
    job = running.jobs.submit(running.proj.add_children_and_fail.si(3, path))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [one.name for one in job.tasks()] == [running.proj.add_children_and_fail.name]
    assert running.lines("deleted") == []


def test_a7_a_temporary_failure_is_worth_re_attempting() -> None:
    assert ours("Arvados", "task", "temporary failure") == (TaskState.SOFT_FAILED,)
    assert TaskState.SOFT_FAILED in TASK_MOVES[TaskState.ACTIVE]
    assert {TaskState.READY, TaskState.QUEUED} <= TASK_MOVES[TaskState.SOFT_FAILED]
    assert success(TaskState.SOFT_FAILED) is None


def test_a7_if_the_process_terminates_without_setting_success_the_task_failed_but_is_worth_re_attempting(
    running: House,
) -> None:
    job = running.jobs.submit(running.proj.end_oddly_without_policy.si("os._exit", running.path("exits")))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert running.lines("exits") == ["os._exit"] * 2  # it was re-attempted, as often as it may be
    (attempts,) = running.ended_attempts(job)
    assert [one.outcome for one in attempts] == ["retried", "failed"]
    (shown,) = running.ask("tasks", job.id, "--json").json
    assert (shown["state"], shown["success"]) == ("failed", False)


def test_a7_exit_code_111_is_a_temporary_failure_0_is_success_and_any_other_is_permanent(running: House) -> None:
    script = running.proj.script
    once = script.si("[ -e {0} ] && exit 0; touch {0}; exit 111", running.path("a7"))
    job = running.jobs.submit(group(script.si("exit 0"), once, script.si("exit 110")))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [task.state for task in job.tasks()] == ["completed", "completed", "failed"]
    outcomes = [[one.outcome for one in ones] for ones in running.ended_attempts(job)]
    assert outcomes == [["succeeded"], ["retried", "succeeded"], ["failed"]]


def test_a5_a_task_is_only_updated_by_the_worker_process_that_has_been_dispatched_to_work_on_it(
    tmp_path: Path, database_url: str
) -> None:
    runner = new_runner(tmp_path, database=database_url)
    add = runner.app.tasks["add"]
    job_id = store(runner, chain(add.s(1, 2), add.s(3)))

    def tell(*events: Event) -> None:
        with runner.database.write() as connection:
            turn = Turn(connection, MIDNIGHT)
            turn.take_up()
            take_ready(turn)
            fold(turn, events)
            turn.move_on()
            turn.settle()

    def states() -> list[str]:
        with runner.database.read() as connection:
            return [task.state for task in reading.list_tasks(connection, job_id)]

    def progress() -> list[float | None]:
        with runner.database.read() as connection:
            return [task.progress for task in reading.list_tasks(connection, job_id)]

    tell()
    with runner.database.read() as connection:
        first = reading.list_tasks(connection, job_id)[0].id
    tell(event("started", at=1, uuid=first))
    for end in ("succeeded", "failed", "retried"):
        tell(event(end, at=2, uuid=first, worker="w2@host", source="another process"))
        assert states() == ["active", "pending"]
    with runner.database.read() as connection:
        assert reading.foreign_number(connection) == 1  # what one process says of an attempt is one row
    assert progress() == [None, None]
    tell(event("progress", at=2, uuid=first, fields={"progress": 0.3}))
    tell(event("progress", at=2, uuid=first, fields={"progress": 0.9}, worker="w2@host", source="another process"))
    assert progress() == [0.3, None]
    tell(event("succeeded", at=3, uuid=first))
    assert states() == ["completed", "ready"]
    runner.database.close()


def test_a6_a_task_is_complete_only_if_its_most_recent_report_had_progress_1(running: House) -> None:
    report = running.proj.report_in_turn
    job = running.jobs.submit(group(report.si([1.0, 0.9], [0.5, 1.0]), report.si([0.5, 1.0]), report.si([])))
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [task.state for task in job.tasks()] == ["completed", "completed", "failed"]
    attempts = running.ended_attempts(job)
    assert [[one.outcome for one in ones] for ones in attempts] == [
        ["retried", "succeeded"], ["succeeded"], ["retried", "retried", "retried", "failed"],
    ]  # fmt: skip
    assert [one.progress for one in attempts[0]] == [1.0, 1.0]  # what is shown never goes back
    assert attempts[0][0].exception == (
        "NoVerdictError('It ended, and its last report is 0.9. With require_progress the last one must be 1.')"
    )
    assert "it has reported no progress" in str(attempts[2][-1].exception)


@pytest.mark.parametrize("barrier", [False, True])
def test_a8_a_step_cannot_run_until_all_steps_with_lower_sequence_numbers_have_completed(
    running: House, barrier: bool
) -> None:
    proj, gate, path = running.proj, running.gate(f"a8-{barrier}"), running.path(f"a8-{barrier}.lines")
    a, b = proj.span.s(1, "a", path), proj.span.s("b", path)
    c, d = proj.span.s(2, "c", path, str(gate)), proj.span.s("d", path)
    job = running.jobs.submit(group(a | b, c | d), barrier=barrier)
    ended, b_is = (1, "pending") if barrier else (2, "completed")  # without one, dependencies alone order them
    until(lambda: job.progress.done == ended, timeout=PATIENCE, what="all that c does not hold up to end")
    assert running.jobs.submit(proj.add.s(1, 2)).result(PATIENCE) == 3
    assert [task.state for task in job.tasks()] == ["completed", b_is, "active", "pending"]
    gate.open()
    assert job.result(PATIENCE) == [1, 2]
    at = {(name, what): float(when) for name, what, when in map(str.split, running.lines(Path(path).name))}
    assert (at["b", "start"] < at["c", "end"]) is not barrier
    assert not barrier or max(at["a", "end"], at["c", "end"]) < min(at["b", "start"], at["d", "start"])


def test_a8_a_failed_step_keeps_all_with_higher_sequence_numbers_from_running(running: House) -> None:
    proj = running.proj
    canvas = group(proj.fail.s("no luck"), chain(proj.identity.s(1), proj.identity.s()))
    job = running.jobs.submit(canvas, barrier=True)
    assert job.wait(PATIENCE) is JobState.FAILED
    assert [task.state for task in job.tasks()] == ["failed", "completed", "canceled"]


@pytest.mark.parametrize(
    ("theirs", "word"), [("sequence", "sequence"), ("qsequence", "arrival"), ("progress", "progress")]
)
def test_a5_a8_a10_their_columns_have_a_word_of_ours(theirs: str, word: str) -> None:
    assert ours("Arvados", "word", theirs) == (word,)


def test_a10_qsequence_is_the_order_of_arrival_from_zero_and_nobody_changes_it(running: House) -> None:
    add, total = running.proj.add, running.proj.total
    canvas = chain(group(add.s(number, 1) for number in range(4)), total.s(), add.s(1))
    job = running.jobs.submit(canvas)
    arrived = [(task.arrival, task.name, task.id) for task in job.tasks()]
    assert [arrival for arrival, _, _ in arrived] == [0, 1, 2, 3, 4, 5]
    assert [name for _, name, _ in arrived] == [add.name] * 4 + [total.name, add.name]
    assert job.result(PATIENCE) == 11
    assert [(task.arrival, task.name, task.id) for task in job.tasks()] == arrived


def test_a10_created_by_job_task_uuid_is_recorded(running: House) -> None:
    job = running.jobs.submit(
        chain(running.proj.add_children.si(2, running.path("recorded")), running.proj.identity.s())
    )
    assert job.wait(PATIENCE) is JobState.COMPLETED
    creator = job.tasks()[0].id
    assert [(one.arrival, one.created_by) for one in job.tasks()] == [(0, None), (1, None), (2, creator), (3, creator)]

"""Jobs that wait for other jobs: nothing of them runs before all of these have completed (C4)."""

import threading
from pathlib import Path

import pytest
from celery import chain, group
from sqlalchemy import select, update

from jobrunner import submit
from jobrunner.errors import InvalidParametersError, JobrunnerError, RefusedError
from jobrunner.order_kinds import OrderKind
from jobrunner.prerequisites import after
from jobrunner.states import JobState, TaskState
from jobrunner.store.check import wrong_counters
from jobrunner.store.schema import job
from tests.apps import new_runner, read_rows, store
from tests.driven import Driven
from tracker import prerequisites


def releases(one: Driven) -> int:
    """How often a job has gone from waiting to queued."""
    return one.moves.count((JobState.WAITING, JobState.QUEUED))


# ---- released ----------------------------------------------------------------------------------------------


def test_a_job_is_released_when_all_that_it_waits_for_have_completed(here: Driven) -> None:
    first = here.submit(here.work(), key="first")
    second = here.submit(here.work())
    third = here.submit(chain(here.work(), here.work()), after=["first", second])
    assert here.state is JobState.WAITING
    assert here.tasks == [TaskState.PENDING] * 2
    here.of(first).run()
    assert here.of(third).state is JobState.WAITING
    here.of(second).run()
    assert here.of(third).state is JobState.QUEUED
    here.turn()
    here.run(0)
    here.run(1)
    assert here.state is JobState.COMPLETED
    assert releases(here) == 1


def test_each_of_a_tree_of_jobs_runs_once_and_after_the_one_before_it(here: Driven) -> None:
    """J1 ← J2 ← J3, J4."""
    here.submit(here.work(), key="J1")
    jobs = [here.job_id]
    for key, wanted in (("J2", "J1"), ("J3", "J2"), ("J4", "J2")):
        jobs.append(here.submit(here.work(), key=key, after=[wanted]))
    for number in range(4):
        states = [here.of(one).state for one in jobs]
        assert states[number] is JobState.QUEUED
        assert number > 1 or set(states[number + 1 :]) == {JobState.WAITING}
        here.of(jobs[number]).run()
        here.turn()
    assert [here.of(one).state for one in jobs] == [JobState.COMPLETED] * 4
    assert [releases(here.of(one)) for one in jobs] == [0, 1, 1, 1]


@pytest.mark.parametrize("name", ["key", "id"])
def test_a_job_that_is_submitted_later_is_waited_for_by_its_key_or_id(here: Driven, name: str) -> None:
    runner = here.world.runner
    later = submit.prepare(runner.app, here.work(), key="later")
    first = here.submit(here.work(), after=[later.job[name]])
    here.submit(here.work(), key="another")
    here.run()
    assert (here.state, here.of(first).state) == (JobState.COMPLETED, JobState.WAITING)
    submit.write(runner.database, later)
    here.turn()
    here.of(later.job["id"]).run()
    assert here.of(first).state is JobState.QUEUED
    assert [row["on_job"] for row in read_rows(runner.database, "prerequisite")] == [later.job["id"]]


def test_jobs_without_tasks_complete_one_after_the_other_in_one_turn(one: Driven) -> None:
    first = one.submit(group([]), after=["root"])
    second = one.submit(group([]), after=[first])
    one.submit(one.work(), key="root")
    one.run()
    assert [one.of(job_id).state for job_id in (first, second)] == [JobState.COMPLETED] * 2


def test_more_steps_than_one_turn_takes_are_taken_by_the_next(one: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "_STEPS", 2)
    root = one.submit(one.work())
    jobs = [root]
    for _ in range(5):
        jobs.append(one.submit(group([]), after=[jobs[-1]]))
    one.of(root).run()
    assert [one.of(job_id).state for job_id in jobs[-2:]] == [JobState.WAITING] * 2
    for _ in range(3):
        one.turn()
    assert one.of(jobs[-1]).state is JobState.COMPLETED


def test_more_jobs_than_one_turn_tells_are_told_by_the_next(one: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "_LINKS", 2)
    root = one.submit(one.work())
    jobs = [one.submit(one.work(), after=[root]) for _ in range(5)]
    one.of(root).run()
    assert [one.of(job_id).state for job_id in jobs].count(JobState.WAITING) == 3
    one.turn()
    one.turn()
    assert [releases(one.of(job_id)) for job_id in jobs] == [1] * 5
    with one.world.runner.database.read() as connection:
        assert not connection.execute(select(job.c.id).where(job.c.chore)).all()


# ---- what is met already, and stays so ---------------------------------------------------------------------


def test_a_job_after_one_that_has_completed_begins_at_once(one: Driven) -> None:
    one.submit(one.work(), key="first")
    one.run()
    one.submit(one.work(), after=["first"])
    assert one.state is JobState.QUEUED
    assert one.tasks == [TaskState.QUEUED]


def test_what_has_completed_once_is_not_waited_for_again(one: Driven) -> None:
    first, other = one.submit(one.work()), one.submit(one.work())
    last = one.submit(one.work(), after=[first, other])
    one.of(first).run()
    one.order(OrderKind.REQUEUE, scope="all")
    one.of(other).run()
    assert (one.of(first).state, one.of(last).state) == (JobState.QUEUED, JobState.QUEUED)


def test_a_requeued_job_waits_for_nothing_that_had_completed(one: Driven) -> None:
    first = one.submit(one.work())
    last = one.submit(one.work(), after=[first])
    one.of(first).run()
    one.turn()
    one.of(last).run()
    one.of(first).order(OrderKind.REQUEUE, scope="all")
    one.of(last).order(OrderKind.REQUEUE, scope="all")
    assert one.state is JobState.QUEUED


def test_what_completes_while_a_job_is_submitted_is_noticed_when_that_is_taken_up(one: Driven) -> None:
    """On PostgreSQL the tracker may end the first one before it can see the second."""
    first = one.submit(one.work())
    last = store(one.world.runner, one.work(), after=[first])
    with one.world.runner.database.write() as connection:
        connection.execute(update(job).where(job.c.id == first).values(state=JobState.COMPLETED))
    one.turn()
    assert one.of(last).state is JobState.QUEUED
    with one.world.runner.database.write() as connection:
        connection.execute(update(job).where(job.c.id == first).values(state=JobState.QUEUED))


# ---- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("first", "'first', is no list"),
        (7, "7, is no list"),
        ([7], "7 is no job"),
        ([None], "None is no job"),
        ([""], "has 0 characters"),
        (["x" * 256], "has 256 characters"),
        (["a\0"], "no database keeps"),
        (["other", "own"], "'own' would wait for itself"),
    ],
)
def test_what_names_no_other_job_is_refused(given: object, problem: str) -> None:
    with pytest.raises(InvalidParametersError, match=problem):
        after(given, key="own")  # type: ignore[arg-type]


def test_a_handle_names_its_job(one: Driven) -> None:
    first = one.world.runner.get(one.submit(one.work(), key="first"))
    assert after([first, first.id, "first"], key=None).wanted == (first.id, "first")


def test_a_job_that_is_named_twice_is_waited_for_once(one: Driven) -> None:
    first = one.submit(one.work(), key="first")
    one.submit(one.work(), after=[first, "first"])
    assert [row["unmet"] for row in read_rows(one.world.runner.database, "job")] == [0, 1]


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELED])
def test_a_job_that_does_not_complete_any_more_is_waited_for_only_if_that_is_asked_for(
    here: Driven, end: JobState
) -> None:
    first = here.submit(here.work(), key="first")
    if end is JobState.FAILED:
        here.run(how="failed")
    else:
        here.order(OrderKind.CANCEL)
        here.notice()
    with pytest.raises(RefusedError, match="has failed" if end is JobState.FAILED else "was canceled"):
        here.submit(here.work(), key="second", after=["first"])
    assert len(read_rows(here.world.runner.database, "job")) == 1
    second = here.submit(here.work(), key="second", after=["first"], wait_for_failed=True)
    assert here.state is JobState.WAITING
    here.of(first).order(OrderKind.REQUEUE, scope="all")
    here.notice()
    here.turn()
    here.run()
    assert here.of(second).state is JobState.QUEUED


def test_jobs_that_would_wait_for_each_other_are_refused_with_who_waits(here: Driven) -> None:
    runner = here.world.runner
    third = here.submit(here.work(), key="3", name="third", after=["1"])
    here.submit(here.work(), key="2", after=["3"])
    before = [read_rows(runner.database, table) for table in ("job", "task", "prerequisite")]
    with pytest.raises(RefusedError, match=rf"for job third \[{third}\], which waits for it"):
        here.submit(here.work(), key="1", after=["0", "2"])
    assert [read_rows(runner.database, table) for table in ("job", "task", "prerequisite")] == before
    here.submit(here.work(), key="1", after=["0"])


def test_a_job_that_was_waited_for_in_vain_closes_no_circle(one: Driven) -> None:
    """What is met holds nobody up."""
    first = one.submit(one.work(), key="first")
    one.run()
    second = one.submit(one.work(), after=["first", "third"])
    with pytest.raises(RefusedError):
        one.submit(one.work(), key="third", after=[second])
    one.submit(one.work(), key="third", after=[first])


def test_of_clients_that_would_close_a_circle_together_one_is_refused(tmp_path: Path, database_url: str) -> None:
    runner = new_runner(tmp_path, database=database_url)
    refused: list[JobrunnerError] = []
    begin = threading.Barrier(8)

    def client(number: int) -> None:
        begin.wait()
        try:
            store(runner, runner.app.tasks["add"].s(1, 2), key=f"{number}", after=[f"{(number + 1) % 8}"])
        except RefusedError as error:
            refused.append(error)

    clients = [threading.Thread(target=client, args=[number]) for number in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    runner.database.close()
    assert len(refused) == 1


def test_the_same_key_is_the_same_job_whatever_it_is_to_wait_for(one: Driven) -> None:
    first = one.submit(one.work(), key="first")
    assert store(one.world.runner, one.work(), key="first", after=["another"]) == first
    assert one.state is JobState.QUEUED
    assert read_rows(one.world.runner.database, "prerequisite") == []


# ---- counted -----------------------------------------------------------------------------------------------


def test_the_check_of_the_database_tells_of_jobs_that_wait_for_another_number_than_they_say(here: Driven) -> None:
    here.submit(here.work(), after=["a", "b"])
    with here.world.runner.database.write() as connection:
        connection.execute(update(job).values(unmet=1))
    with here.world.runner.database.read() as connection:
        assert wrong_counters(connection) == [
            f"Job {here.job_id} says that it waits for 1 other jobs, where it waits for 2."
        ]
    with here.world.runner.database.write() as connection:
        connection.execute(update(job).values(unmet=2))


def test_one_whose_tasks_an_operator_has_ended_while_it_waited_ends_when_it_waits_no_more(here: Driven) -> None:
    first = here.submit(here.work(), key="first")
    then = here.submit(here.work(), after=["first"])
    here.order(OrderKind.FAIL, 0)
    here.order(OrderKind.SKIP, 0)
    assert (here.state, here.tasks) == (JobState.WAITING, [TaskState.SKIPPED])
    here.of(first).run()
    here.of(then).turn()
    assert here.state is JobState.COMPLETED

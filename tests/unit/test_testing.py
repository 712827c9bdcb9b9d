"""`jobrunner.testing`: jobs run inline, and come to what they come to elsewhere; nobody is asked who is not there."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Signature, chain, chord, current_app, group
from celery.exceptions import Ignore, Reject

from jobrunner import ItemError, JobRunner, Partial, Skip, current
from jobrunner.errors import (
    InvalidCanvasError,
    InvalidParametersError,
    JobFailedError,
    NotFoundError,
    OutsideJobError,
    RefusedError,
)
from jobrunner.statements import ItemCounts
from jobrunner.states import JobState, TaskState
from jobrunner.testing import InlineJob, run
from tests.apps import new_app


@pytest.fixture
def jobs(tmp_path: Path) -> JobRunner:
    """Return a runner whose broker and result backend are away, and whose database does not exist."""
    return JobRunner(new_app(tmp_path), database=f"sqlite:///{tmp_path / 'nothing' / 'jobs.db'}")


@pytest.fixture
def identity(jobs: JobRunner) -> Any:
    @jobs.task(name="identity", shared=False)
    def identity(value: Any = None) -> Any:
        return value

    return identity


@pytest.fixture
def fail(jobs: JobRunner) -> Any:
    @jobs.app.task(name="fail", shared=False)
    def fail(value: Any = "no") -> None:
        raise ValueError(value)

    return fail


def states(job: InlineJob) -> dict[str, list[str]]:
    """Return the states of a job's tasks by their names."""
    found: dict[str, list[str]] = {}
    for one in job.tasks():
        found.setdefault(one.name, []).append(str(one.state))
    return found


# ---- values ------------------------------------------------------------------------------------------------


def test_a_canvas_has_its_value_in_milliseconds(identity: Any) -> None:
    run(identity.s(0))
    began = time.perf_counter()
    job = run(chain(identity.s(1), group(identity.s(), identity.si(2)), identity.s()))
    assert time.perf_counter() - began < 0.5
    assert job.result() == [1, 2]
    assert (job.state, job.outcome, job.progress.share) == (JobState.COMPLETED, "ok", 1.0)
    assert job.wait() is JobState.COMPLETED
    assert [one.sequence for one in job.tasks()] == [0, 1, 1, 2]


def test_arguments_and_values_go_through_the_serializer(jobs: JobRunner, identity: Any) -> None:
    assert run(chain(identity.s((1, 2)), identity.s())).result() == [1, 2]
    with pytest.raises(InvalidCanvasError, match="cannot be serialized as json"):
        run(identity.s(object()))

    @jobs.task(name="odd", shared=False)
    def odd() -> object:
        return object()

    job = run(odd.s())
    assert job.state is JobState.FAILED
    assert "EncodeError" in str(job.view.note)


def test_what_submit_refuses_is_refused(jobs: JobRunner, identity: Any) -> None:
    with pytest.raises(InvalidCanvasError, match="not registered"):
        run(Signature("unknown", app=jobs.app))
    with pytest.raises(InvalidCanvasError, match="arguments do not fit"):
        run(identity.s(1, 2))
    with pytest.raises(InvalidParametersError, match="on_failure"):
        run(identity.s(1), on_failure="panic")


def test_a_named_job_runs_with_parameters_as_text(jobs: JobRunner, identity: Any) -> None:
    @jobs.job("nightly")
    def nightly(region: str, days: int = 2) -> Signature:
        return group(identity.s([region, day]) for day in range(days))

    job = run("nightly", {"region": "eu", "days": "1"}, app=jobs)
    assert (job.view.name, job.result()) == ("nightly", [["eu", 0]])
    with pytest.raises(NotFoundError, match="It has nightly"):
        run("daily", app=jobs.app)
    with pytest.raises(InvalidParametersError, match="days='two'"):
        run("nightly", {"region": "eu", "days": "two"}, app=jobs)


def test_a_named_job_says_what_failures_mean_for_it(jobs: JobRunner, clean: Any) -> None:
    @jobs.job("tolerant", on_partial="tolerate")
    def tolerant() -> Signature:
        return clean.s(["bad"])

    assert run("tolerant", app=jobs).outcome == "with-errors"
    assert run("tolerant", app=jobs, on_partial="fail").reason == "partial"
    jobs.app.conf.task_always_eager = True
    assert jobs.submit_named("tolerant", {}).state is JobState.COMPLETED
    with pytest.raises(InvalidParametersError, match="on_failure"):
        jobs.job("panics", on_failure="panic")


def test_a_job_without_tasks_had_nothing_to_do(jobs: JobRunner) -> None:
    job = run(group([]), app=jobs)
    assert (job.state, job.outcome, job.result()) == (JobState.COMPLETED, "noop", [])


# ---- failures ----------------------------------------------------------------------------------------------


def test_a_failure_cancels_what_comes_after_it_and_leaves_the_rest(identity: Any, fail: Any) -> None:
    job = run(chain(group(chain(fail.s("no"), identity.s()), identity.s(1)), identity.s()))
    assert (job.state, job.reason) == (JobState.FAILED, "task")
    failed = next(one for one in job.tasks() if one.name == "fail")
    assert job.view.note == f"fail [{failed.id}] failed: ValueError('no')"
    assert "raise ValueError" in str(failed.traceback)
    assert states(job) == {"fail": ["failed"], "identity": ["canceled", "completed", "canceled"]}
    upstream = {(one.reason, one.note) for one in job.tasks() if one.state is TaskState.CANCELED}
    assert upstream == {("upstream", f"upstream: fail [{failed.id}] failed")}
    with pytest.raises(JobFailedError, match="failed: ValueError") as raised:
        job.result()
    assert isinstance(raised.value.__cause__, ValueError)


def test_failure_rules_are_those_of_the_tracker(identity: Any, fail: Any) -> None:
    canvas = group(fail.s(), chain(fail.s(), identity.s()), identity.s(1), identity.s(2))
    assert run(canvas, propagate_failures=True).progress.counts == {TaskState.FAILED: 3, TaskState.COMPLETED: 2}
    job = run(canvas, on_failure="cancel")
    assert (job.state, job.reason, job.progress.counts) == (
        JobState.FAILED, "task", {TaskState.FAILED: 1, TaskState.CANCELED: 4})  # fmt: skip
    assert {one.reason for one in job.tasks() if one.state is TaskState.CANCELED} == {"rule"}
    job = run(canvas, threshold=0.4)
    assert (job.reason, job.progress.counts[TaskState.FAILED]) == ("threshold", 2)
    assert str(job.view.note).startswith("2 of 5 tasks failed, and its threshold is 40 percent")


def test_with_a_barrier_a_failure_keeps_later_levels_from_running(identity: Any, fail: Any) -> None:
    canvas = group(fail.s(), chain(identity.s(1), identity.s()))
    assert states(run(canvas))["identity"] == ["completed", "completed"]
    assert states(run(canvas, barrier=True))["identity"] == ["completed", "canceled"]


def test_soft_failures_are_tried_again_at_once_as_often_as_the_policy_says(jobs: JobRunner, identity: Any) -> None:
    tries: list[int] = []

    @jobs.task(name="flaky", shared=False, bind=True, retry_backoff=100, retry_jitter=False)
    def flaky(self: Any, value: str, times: int) -> str:
        tries.append(self.request.retries)
        if len(tries) <= times:
            raise ValueError(tries)
        return value

    job = run(identity.s("value") | flaky.s(2))
    assert (job.result(), tries, job.tasks()[1].retries) == ("value", [0, 1, 2], 2)
    tries.clear()
    job = run(flaky.s("value", 9))
    assert (job.state, job.reason, tries) == (JobState.FAILED, "retries", [0, 1, 2, 3])


@pytest.mark.parametrize("how", [Ignore, Reject, lambda: sys.exit(3)], ids=["Ignore", "Reject", "sys.exit"])
def test_an_end_without_a_verdict_is_a_soft_failure(jobs: JobRunner, how: Any) -> None:
    tries: list[int] = []

    @jobs.task(name="odd", shared=False, max_retries=1)
    def odd() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise how()
        return "well"

    job = run(odd.s())
    assert (job.result(), job.tasks()[0].retries) == ("well", 1)


def test_a_retry_with_other_arguments_keeps_the_value_that_it_takes(jobs: JobRunner, identity: Any) -> None:
    @jobs.task(name="again", shared=False, bind=True)
    def again(self: Any, value: str, more: int) -> Any:
        if not self.request.retries:
            raise self.retry(args=[more + 1])
        return value, more

    assert run(identity.s("before") | again.s(1)).result() == ["before", 2]


def test_without_the_report_that_all_is_done_an_attempt_has_failed(jobs: JobRunner) -> None:
    @jobs.task(name="half", shared=False, bind=True, require_progress=True)
    def half(self: Any) -> None:
        current.progress(1 + self.request.retries, 2, "packing")

    (task,) = run(half.s()).tasks()
    assert (task.state, task.retries, task.progress, task.said) == (TaskState.COMPLETED, 1, 1.0, "packing")


# ---- what bodies state -------------------------------------------------------------------------------------


@pytest.fixture
def clean(jobs: JobRunner) -> Any:
    """Return a task that cannot process what begins with "bad", and finds nothing to do in an empty list."""

    @jobs.task(name="clean", shared=False)
    def clean(paths: list[str]) -> Any:
        if not paths:
            raise Skip("no paths", value=[])  # noqa: EM101, TRY003  as a user writes it
        bad = [ItemError(item=path, message=f"{path} is odd") for path in paths if path.startswith("bad")]
        good = [path for path in paths if not path.startswith("bad")]
        return Partial(good, errors=bad, processed=len(good))

    return clean


def test_a_partial_task_hands_on_what_it_has_and_its_job_fails_in_the_end(clean: Any, identity: Any) -> None:
    job = run(clean.s(["a", "bad b", "c"]) | identity.s())
    assert states(job) == {"clean": ["partial"], "identity": ["completed"]}
    assert (job.state, job.reason) == (JobState.FAILED, "partial")
    task, last = job.tasks()
    assert (task.note, last.result) == ("1 failed of 3 items, the first: bad b: bad b is odd", "['a', 'c']")
    assert job.view.note == f"clean [{task.id}] partial: {task.note}"
    with pytest.raises(JobFailedError, match="1 failed of 3 items"):
        job.result()
    assert job.items == task.items == ItemCounts(processed=2, failed=1)
    (error,) = job.task(task.id).item_errors()
    assert (error.number, error.item, error.error) == (0, "bad b", "bad b is odd")
    assert job.task(task.id).item_errors(after=0) == job.task(last.id).item_errors() == []


def test_a_job_that_tolerates_partial_tasks_completes_with_errors(clean: Any) -> None:
    job = run(group(clean.s(["a", "bad b"]), clean.s(["bad c", "bad d"])), on_partial="tolerate")
    assert (job.state, job.outcome, job.result()) == (JobState.COMPLETED, "with-errors", [["a"], []])
    assert str(job.view.note).startswith("2 tasks are partial, 3 items failed; the first task is clean [")


def test_a_task_that_finds_nothing_to_do_is_skipped_and_hands_on_what_it_says(clean: Any, identity: Any) -> None:
    job = run(clean.s([]) | identity.s())
    assert (states(job)["clean"], job.result(), job.outcome) == (["skipped"], [], "ok")
    assert job.tasks()[0].note == "no paths"
    assert run(chain(clean.s([]), clean.s())).outcome == "noop"


@pytest.fixture
def skipper(jobs: JobRunner) -> Any:
    """Return a task that has what comes next skipped, or of a group the branches that begin with these names."""

    @jobs.task(name="skipper", shared=False)
    def skipper(*names: str) -> str:
        current.skip_next("no use", *names)
        return "value"

    return skipper


def test_what_comes_next_is_skipped_if_the_task_before_says_so(skipper: Any, identity: Any, fail: Any) -> None:
    job = run(chain(skipper.s(), chord([fail.s(), chain(fail.s(), fail.s())], identity.s())))
    assert states(job) == {"skipper": ["completed"], "fail": ["skipped"] * 3, "identity": ["completed"]}
    assert (job.state, job.outcome, job.result()) == (JobState.COMPLETED, "ok", [None, None])
    said = {(one.reason, one.note) for one in job.tasks() if one.name == "fail"}
    assert said == {("said", f"skipped: no use (said by skipper [{job.tasks()[0].id}])")}
    job = run(
        chain(skipper.s("fail"), group(chain(fail.s(), identity.s()), identity.s(), group(fail.s())), identity.s())
    )
    assert job.result() == [None, "value", [None]]
    assert run(chain(skipper.s(), fail.s())).outcome == "noop"
    assert run(chain(chain(identity.s(1), skipper.si()), fail.s(), identity.si(1))).result() == 1
    assert run(group(skipper.s(), identity.s(1))).result() == ["value", 1]


def test_an_empty_value_skips_who_is_declared_so(jobs: JobRunner, identity: Any) -> None:
    @jobs.task(name="work", shared=False, skip_empty=True)
    def work(value: Any) -> Any:
        return value

    job = run(chain(identity.s([]), work.s(), work.s(), identity.s()))
    assert (states(job)["work"], job.result(), job.outcome) == (["skipped", "skipped"], None, "ok")
    assert {one.note for one in job.tasks() if one.name == "work"} == {"skipped: what it takes is empty"}
    empty = group(identity.s(None), identity.s(b""), chain(identity.s(""), work.s()))
    assert states(run(chain(empty, work.s())))["work"] == ["skipped", "skipped"]
    assert run(chain(group(identity.s(None), identity.s(0)), work.s())).result() == [None, 0]
    assert states(run(work.s([])))["work"] == ["completed"]


# ---- growing -----------------------------------------------------------------------------------------------


def test_what_a_task_adds_runs_before_what_comes_after_it(jobs: JobRunner, identity: Any) -> None:
    order: list[str] = []

    @jobs.task(name="note", shared=False)
    def note(what: str) -> None:
        order.append(what)

    @jobs.task(name="grow", shared=False)
    def grow() -> str:
        current.add(chain(note.si("first"), note.si("second")))
        current.add(note.si("third"))
        return "grown"

    job = run(chain(grow.s(), identity.s(), note.s()))
    assert sorted(order[:3]) == ["first", "second", "third"]
    assert order[3:] == ["grown"]
    (creator, *_), added = job.tasks(), [one for one in job.tasks() if one.created_by]
    assert {one.created_by for one in added} == {creator.id}
    assert [one.sequence for one in added] == [1, 2, 1]


def test_the_value_of_a_task_that_expands_is_that_of_its_canvas(jobs: JobRunner, identity: Any) -> None:
    @jobs.task(name="expand", shared=False, bind=True)
    def expand(self: Any, how: str) -> str:
        if how == "replace":
            raise self.replace(group(identity.s(1), expand.s("nothing")))
        current.expand(group([]) if how == "nothing" else identity.s(how))
        return "not this"

    assert run(expand.s("replace") | identity.s()).result() == [1, []]
    assert run(expand.s("one")).result() == "one"


def test_what_a_failed_attempt_has_added_is_gone(jobs: JobRunner, identity: Any) -> None:
    @jobs.task(name="grow", shared=False, bind=True)
    def grow(self: Any) -> None:
        current.add(identity.s(self.request.retries))
        if not self.request.retries:
            raise ValueError

    job = run(grow.s())
    assert [one.result for one in job.tasks()] == ["None", "1"]


def test_a_job_that_discovers_nothing_had_nothing_to_do(jobs: JobRunner, identity: Any) -> None:
    @jobs.task(name="discover", shared=False, discovers=True)
    def discover(number: int) -> None:
        current.expand(group(identity.s(one) for one in range(number)))

    assert run(discover.s(0) | identity.s()).outcome == "noop"
    assert run(discover.s(1) | identity.s()).outcome == "ok"


def test_what_a_body_sends_by_celerys_means_runs_at_once_and_is_part_of_the_job(
    jobs: JobRunner, identity: Any, fail: Any
) -> None:
    @jobs.app.task(name="send", shared=False)
    def send(*canvases: dict[str, Any]) -> list[Any]:
        return [Signature.from_dict(one, app=jobs.app).apply_async().id for one in canvases]

    linked = chord([identity.s()], identity.s())
    sent = send.s(identity.s(1), chord([identity.s(2), identity.s(3)], identity.s())).set(link=[identity.s(), linked])
    job = run(sent)
    assert job.state is JobState.COMPLETED
    adopted = [one for one in job.tasks() if one.created_by]
    assert len(adopted) == 7
    assert {one.state for one in adopted} == {TaskState.COMPLETED}
    job = run(send.s(fail.s("no")))
    assert (job.state, states(job)) == (JobState.FAILED, {"send": ["completed"], "fail": ["failed"]})


def test_a_body_of_another_task_is_no_task_of_the_job(jobs: JobRunner) -> None:
    @jobs.app.task(name="grow", shared=False)
    def grow() -> None:
        current.add(grow.s())

    with pytest.raises(OutsideJobError):
        grow.apply(throw=True)


def test_a_command_runs_inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_HOME", str(tmp_path))
    jobs = JobRunner(new_app(tmp_path))
    made = jobs.command(["sh", "-c", "echo done > made; echo progress: 0.5 half"], outputs=["made"])
    job = run(made)
    assert ([one["path"] for one in job.result()["outputs"]], job.tasks()[0].said) == (["made"], "half")
    assert run(jobs.command(["false"])).reason == "task"


# ---- what it is not ----------------------------------------------------------------------------------------


def test_nothing_can_be_ordered(identity: Any) -> None:
    job = run(identity.s(1))
    task = job.task(job.tasks()[0].id)
    for order in (job.pause, job.cancel, job.requeue, task.skip, task.logs):
        with pytest.raises(RefusedError, match="has run inline"):
            order()


def test_the_app_is_left_as_it_was(jobs: JobRunner, identity: Any) -> None:
    jobs.app.conf.task_eager_propagates = True
    before = jobs.app.events

    @jobs.app.task(name="leave", shared=False)
    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(leave.s())
    run(identity.s(1))
    assert current_app._get_current_object() is not jobs.app
    assert jobs.app.events is before
    assert not jobs.app.conf.task_always_eager
    assert jobs.app.conf.task_eager_propagates


def test_bodies_ask_no_server(jobs: JobRunner) -> None:
    @jobs.task(name="look", shared=False, bind=True)
    def look(self: Any) -> bool:
        self.update_state(state="PROGRESS", meta={"current": 1, "total": 4})
        self.send_event("task-own", degrees=21)
        return current.canceled

    job = run(look.s())
    assert (job.result(), job.tasks()[0].progress) == (False, 0.25)


# ---- task_always_eager -------------------------------------------------------------------------------------


def test_what_is_submitted_runs_at_once_where_celery_is_eager(jobs: JobRunner, identity: Any, fail: Any) -> None:
    jobs.app.conf.task_always_eager = True
    job = jobs.submit(chain(identity.s(1), identity.s()), name="now", key="once", after=["another"])
    assert (job.state, job.result(timeout=1), job.view.key) == (JobState.COMPLETED, 1, "once")
    assert jobs.submit(fail.s("no")).state is JobState.FAILED
    with pytest.raises(RefusedError, match="paused"):
        jobs.submit(identity.s(1), paused=True)


def test_errors_come_out_of_submit_where_celery_lets_them_out(jobs: JobRunner, fail: Any) -> None:
    jobs.app.conf.update(task_always_eager=True, task_eager_propagates=True)
    with pytest.raises(ValueError, match="no"):
        jobs.submit(fail.s("no"))


def test_what_a_body_submits_runs_inline_as_a_job_of_its_own(jobs: JobRunner, identity: Any) -> None:
    @jobs.task(name="submit", shared=False)
    def submit() -> Any:
        return jobs.submit(identity.s("inner")).result()

    job = run(submit.s())
    assert (job.result(), len(job.tasks())) == ("inner", 1)

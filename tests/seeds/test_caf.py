"""What the CAF job tracking worker says (C), as far as states and moves alone show it."""

from jobrunner.states import JOB_MOVES, OPEN_TASK, TASK_MOVES, JobState, TaskState


def test_c4_a_job_is_not_executed_until_all_jobs_it_depends_on_have_completed() -> None:
    started = {JobState.UNDER_CONSTRUCTION, JobState.ACTIVE, JobState.PAUSING}
    assert not started & JOB_MOVES[JobState.WAITING]
    assert JobState.COMPLETED not in JOB_MOVES[JobState.WAITING]


def test_c4_then_it_is_forwarded_automatically() -> None:
    assert JobState.QUEUED in JOB_MOVES[JobState.WAITING]


def test_c5_tasks_that_will_never_be_eligible_to_run_are_marked_failed_too() -> None:
    assert TaskState.PENDING not in OPEN_TASK
    assert TaskState.FAILED in TASK_MOVES[TaskState.PENDING]


def test_c5_jobs_that_will_never_be_eligible_to_run_are_marked_failed_too() -> None:
    assert JobState.FAILED in JOB_MOVES[JobState.WAITING]

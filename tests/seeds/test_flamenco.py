"""What Flamenco's statuses say (F1 and F4): every arrow is a way through our moves, and is driven by a test."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from celery import chain, group

from jobrunner.order_kinds import OrderKind
from jobrunner.states import JOB_MOVES, TASK_MOVES, JobState, TaskState
from jobrunner.terminology import Kind, ours
from tests.driven import Driven, driven

JOB_ARROWS = """
under-construction -> queued
under-construction -> active
queued -> active
queued -> canceled
active -> completed
active -> canceled
active -> failed
completed -> queued
failed -> queued
failed -> canceled
cancel-requested -> canceled
canceled -> queued
requeueing -> queued
""".strip().splitlines()

TASK_ARROWS = """
queued -> active
queued -> canceled
active -> completed
active -> canceled
active -> failed
active -> soft-failed
completed -> queued
soft-failed -> queued
soft-failed -> completed
soft-failed -> failed
soft-failed -> canceled
failed -> queued
failed -> canceled
canceled -> queued
""".strip().splitlines()

# What may be passed on the way to a status, where Flamenco draws one arrow: the order that is being carried out, and
# what comes before a task is sent. Passing anything else would be another arrow.
STOPS: dict[tuple[Kind, str], set[str]] = {
    ("job", "queued"): {JobState.REQUEUEING},
    ("job", "canceled"): {JobState.CANCEL_REQUESTED},
    ("task", "queued"): {TaskState.PENDING, TaskState.READY},
}
MOVES: dict[Kind, dict[str, frozenset[str]]] = {
    "job": {str(state): frozenset(targets) for state, targets in JOB_MOVES.items()},
    "task": {str(state): frozenset(targets) for state, targets in TASK_MOVES.items()},
}


def _is_a_way(kind: Kind, arrow: str) -> bool:
    """Tell whether all states that the left name stands for lead to one that the right name stands for."""
    left, right = arrow.split(" -> ")
    start, end = set(ours("Flamenco", kind, left)), set(ours("Flamenco", kind, right))
    # States that share the left name may be passed as well: to Flamenco, nothing happens between them.
    stops = STOPS.get((kind, right), set()) | start
    return bool(start) and all(_leads(MOVES[kind], state, end, stops) for state in start)


def _leads(moves: Mapping[str, frozenset[str]], start: str, end: set[str], stops: set[str]) -> bool:
    seen: set[str] = set()
    front = {start}
    while front:
        seen |= front
        targets = {target for state in front for target in moves[state]}
        if targets & end:
            return True
        front = (targets & stops) - seen
    return False


@pytest.mark.parametrize("arrow", JOB_ARROWS)
def test_f1_every_arrow_of_a_job_is_a_way_through_our_moves(arrow: str) -> None:
    assert _is_a_way("job", arrow)


@pytest.mark.parametrize("arrow", TASK_ARROWS)
def test_f4_every_arrow_of_a_task_is_a_way_through_our_moves(arrow: str) -> None:
    assert _is_a_way("task", arrow)


@pytest.mark.parametrize("arrow", ["canceled -> completed", "completed -> failed", "cancel-requested -> queued"])
def test_f1_an_arrow_of_a_job_that_flamenco_lacks_is_no_way(arrow: str) -> None:
    assert not _is_a_way("job", arrow)


@pytest.mark.parametrize("arrow", ["canceled -> active", "completed -> failed", "failed -> completed"])
def test_f4_an_arrow_of_a_task_that_flamenco_lacks_is_no_way(arrow: str) -> None:
    assert not _is_a_way("task", arrow)


@pytest.mark.parametrize("name", sorted({name for arrow in JOB_ARROWS for name in arrow.split(" -> ")} | {"paused"}))
def test_f1_a_job_status_has_the_same_name_with_us(name: str) -> None:
    assert ours("Flamenco", "job", name) == (JobState(name),)


@pytest.mark.parametrize("name", ["queued", "active", "completed", "soft-failed", "failed", "canceled"])
def test_f4_a_task_status_has_the_same_name_with_us(name: str) -> None:
    assert TaskState(name) in ours("Flamenco", "task", name)


def test_f1_queued_is_ready_to_be_assigned() -> None:
    assert JobState.ACTIVE in JOB_MOVES[JobState.QUEUED]


def test_f1_a_cancel_requested_by_a_user_ends_in_canceled_only() -> None:
    assert JOB_MOVES[JobState.CANCEL_REQUESTED] == {JobState.CANCELED}


def test_f1_completed_failed_and_canceled_jobs_are_queued_again_by_requeueing() -> None:
    for ended in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED):
        assert JobState.REQUEUEING in JOB_MOVES[ended]
        assert JobState.QUEUED not in JOB_MOVES[ended]


def test_f4_queued_is_ready_to_be_assigned() -> None:
    assert ours("Flamenco", "task", "queued") == (TaskState.READY, TaskState.QUEUED)


def test_f4_soft_failed_is_same_as_queued_but_has_been_failed_by_a_worker_in_an_earlier_execution() -> None:
    queued, soft_failed = TASK_MOVES[TaskState.QUEUED], TASK_MOVES[TaskState.SOFT_FAILED]
    assert queued - {TaskState.SOFT_FAILED} <= soft_failed
    assert {state for state in TaskState if TaskState.SOFT_FAILED in TASK_MOVES[state]} == {
        TaskState.QUEUED,  # its start was not seen
        TaskState.ACTIVE,
    }


def test_f4_a_paused_task_is_ready_with_us() -> None:
    assert ours("Flamenco", "task", "paused") == (TaskState.READY,)
    assert TaskState.READY in TASK_MOVES[TaskState.QUEUED]


# ---- every arrow, driven: real turns of the tracker, on what a simulated worker tells and what is ordered ------


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Driven]:
    """Return a world with a worker, to submit one job."""
    with driven(tmp_path) as made:
        yield made


@pytest.mark.parametrize("arrow", [f"f1_{one}" for one in JOB_ARROWS] + [f"f4_{one}" for one in TASK_ARROWS])
def test_every_arrow_has_a_test_that_is_named_after_it(arrow: str) -> None:
    assert callable(globals()[f"test_{arrow}".replace(" -> ", "_to_").replace("-", "_")])


def test_f1_under_construction_to_queued(one: Driven) -> None:
    one.submit(chain(one.work(discovers=True), one.work()))
    one.start()
    assert one.state is JobState.UNDER_CONSTRUCTION
    one.end()
    assert one.state is JobState.QUEUED


def test_f1_under_construction_to_active(one: Driven) -> None:
    one.submit(group(one.work(discovers=True), one.work()))
    one.start(0)
    assert one.state is JobState.UNDER_CONSTRUCTION
    one.start(1)
    assert one.state is JobState.ACTIVE


def test_f1_queued_to_active(one: Driven) -> None:
    one.submit(one.work())
    assert one.state is JobState.QUEUED
    one.start()
    assert one.state is JobState.ACTIVE


def test_f1_queued_to_canceled(one: Driven) -> None:
    one.submit(one.work())
    one.order(OrderKind.CANCEL)
    one.notice()
    assert one.moves == [
        (JobState.QUEUED, JobState.CANCEL_REQUESTED),
        (JobState.CANCEL_REQUESTED, JobState.CANCELED),
    ]


def test_f1_active_to_completed(one: Driven) -> None:
    one.submit(one.work())
    one.run()
    assert one.moves == [(JobState.QUEUED, JobState.ACTIVE), (JobState.ACTIVE, JobState.COMPLETED)]


def test_f1_active_to_canceled(one: Driven) -> None:
    """By the user, terminated immediately on all workers."""
    one.submit(one.work())
    one.start()
    one.order(OrderKind.CANCEL, grace=0.0)
    assert (one.state, one.answer) == (JobState.CANCEL_REQUESTED, None)
    one.notice()
    assert one.moves[-2:] == [
        (JobState.ACTIVE, JobState.CANCEL_REQUESTED),
        (JobState.CANCEL_REQUESTED, JobState.CANCELED),
    ]
    assert one.tasks == [TaskState.CANCELED]


def test_f1_active_to_failed(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")
    assert one.moves[-1] == (JobState.ACTIVE, JobState.FAILED)


def test_f1_failed_is_one_or_more_tasks_failed_after_multiple_retries_by_different_workers(one: Driven) -> None:
    world = one.world
    for name in ("second", "third"):
        world.come(name, terminates=True)
    one.turn()
    one.notice()  # who lives
    one.submit(one.work())
    tried = []
    for how in ("retried", "retried", "failed"):
        for name, worker in world.workers.items():  # who has failed it is always the first to get it again
            (message,) = world.queue
            world.prefetch(worker, message)
            world.start(worker, message)
            one.turn()
            one.turn()  # by then what was handed back goes out again
            if worker.running:
                tried.append(name)
                world.end(worker, worker.running[0], how)
                one.turn()
                break
    assert tried == ["worker", "second", "third"]
    assert (one.state, one.tasks) == (JobState.FAILED, [TaskState.FAILED])


def test_f1_completed_to_queued(one: Driven) -> None:
    one.submit(one.work())
    one.run()
    one.order(OrderKind.REQUEUE)
    one.notice()
    assert one.moves[-2:] == [(JobState.COMPLETED, JobState.REQUEUEING), (JobState.REQUEUEING, JobState.QUEUED)]
    assert one.tasks == [TaskState.QUEUED]


def test_f1_failed_to_queued(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")
    one.order(OrderKind.REQUEUE)
    assert one.moves[-2:] == [(JobState.FAILED, JobState.REQUEUEING), (JobState.REQUEUEING, JobState.QUEUED)]


def test_f1_failed_to_canceled(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")
    one.order(OrderKind.CANCEL)
    assert one.moves[-1] == (JobState.FAILED, JobState.CANCELED)


def test_f1_cancel_requested_to_canceled(one: Driven) -> None:
    one.submit(one.work())
    one.start()
    one.order(OrderKind.CANCEL, grace=None)
    one.notice()
    assert one.state is JobState.CANCEL_REQUESTED
    one.end()
    assert one.moves[-1] == (JobState.CANCEL_REQUESTED, JobState.CANCELED)


def test_f1_canceled_to_queued(one: Driven) -> None:
    one.submit(one.work())
    one.order(OrderKind.CANCEL)
    one.notice()
    one.order(OrderKind.REQUEUE)
    assert one.moves[-2:] == [(JobState.CANCELED, JobState.REQUEUEING), (JobState.REQUEUEING, JobState.QUEUED)]


def test_f1_requeueing_to_queued(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.run(0)
    one.run(1)
    one.order(OrderKind.REQUEUE)
    one.notice()
    assert one.moves[-1] == (JobState.REQUEUEING, JobState.QUEUED)
    assert one.tasks == [TaskState.QUEUED, TaskState.PENDING]


def test_f1_paused_is_left_by_resuming(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.end(0)
    one.notice()
    assert (one.state, one.tasks) == (JobState.PAUSED, [TaskState.COMPLETED, TaskState.READY])
    one.order(OrderKind.RESUME)
    one.notice()
    assert (one.state, one.tasks) == (JobState.ACTIVE, [TaskState.COMPLETED, TaskState.QUEUED])


def test_f4_queued_to_active(one: Driven) -> None:
    one.submit(one.work())
    assert one.tasks == [TaskState.QUEUED]
    one.start()
    assert one.tasks == [TaskState.ACTIVE]


def test_f4_queued_to_canceled(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.order(OrderKind.CANCEL, 0)
    assert one.tasks == [TaskState.CANCELED, TaskState.QUEUED]


def test_f4_active_to_completed(one: Driven) -> None:
    one.submit(one.work())
    one.start()
    one.end()
    assert one.tasks == [TaskState.COMPLETED]


def test_f4_active_to_canceled(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.CANCEL, 0, grace=0.0)
    assert (one.tasks[0], one.answer) == (TaskState.ACTIVE, None)
    one.notice()
    assert one.tasks == [TaskState.CANCELED, TaskState.QUEUED]


def test_f4_active_to_failed(one: Driven) -> None:
    one.submit(one.work())
    one.start()
    one.end(how="failed")
    assert one.tasks == [TaskState.FAILED]


def test_f4_active_to_soft_failed(one: Driven) -> None:
    one.submit(one.work())
    one.start()
    one.end(how="retried")
    assert one.tasks == [TaskState.SOFT_FAILED]


def test_f4_completed_to_queued(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.run(0)
    one.run(1)
    one.order(OrderKind.REQUEUE, 0)
    one.notice()
    assert one.tasks == [TaskState.QUEUED, TaskState.COMPLETED]


def test_f4_soft_failed_to_queued(one: Driven) -> None:
    """The worker that has the retry is lost: the tracker sends the next delivery."""
    one.submit(one.work())
    one.run(how="retried")
    one.start()
    one.lose_worker()
    assert (one.tasks, one.row(0).delivery) == ([TaskState.QUEUED], 2)


def test_f4_soft_failed_to_completed(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="retried")
    assert one.tasks == [TaskState.SOFT_FAILED]
    one.run()
    assert one.tasks == [TaskState.COMPLETED]


def test_f4_soft_failed_to_failed(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="retried")
    one.run(how="failed")
    assert one.tasks == [TaskState.FAILED]


@pytest.mark.parametrize("how", ["an exception", "a lost worker"])
def test_f4_a_task_is_failed_after_multiple_retries_and_f1_its_job_because_of_it(one: Driven, how: str) -> None:
    """Each of the attempts before is a soft failure, which is retried."""
    one.submit(one.work())
    for retries in range(3):
        one.start()
        if how == "an exception":
            one.end(how="retried")
            assert one.tasks == [TaskState.SOFT_FAILED]
        else:
            one.lose_worker()
            assert (one.tasks, one.row(0).first_retries) == ([TaskState.QUEUED], retries + 1)
    assert one.state is JobState.ACTIVE
    one.start()
    if how == "an exception":
        one.end(how="failed")
    else:
        one.lose_worker()
    assert (one.tasks, one.state) == ([TaskState.FAILED], JobState.FAILED)
    assert one.row(0).reason == ("retries" if how == "an exception" else "poison")


def test_f4_soft_failed_to_canceled(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="retried")
    one.order(OrderKind.CANCEL, 0)
    assert one.tasks == [TaskState.CANCELED]


def test_f4_failed_to_queued(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")
    one.order(OrderKind.REQUEUE, 0)
    one.notice()
    assert one.tasks == [TaskState.QUEUED]


def test_f4_failed_to_canceled(one: Driven) -> None:
    one.submit(one.work())
    one.run(how="failed")
    one.order(OrderKind.CANCEL, 0)
    assert (one.tasks, one.state) == ([TaskState.CANCELED], JobState.CANCELED)


def test_f4_canceled_to_queued(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.order(OrderKind.CANCEL, 0)
    one.notice()
    one.run(1)
    assert one.state is JobState.CANCELED
    one.order(OrderKind.REQUEUE, 0)
    one.notice()
    assert one.tasks == [TaskState.QUEUED, TaskState.COMPLETED]


def test_f4_a_paused_task_is_ready_and_held_and_queued_when_its_job_goes_on(one: Driven) -> None:
    one.submit(chain(one.work(), one.work()))
    one.start(0)
    one.order(OrderKind.PAUSE)
    one.end(0)
    assert (one.tasks[1], one.row(1).held) == (TaskState.READY, True)
    one.notice()
    one.order(OrderKind.RESUME)
    one.notice()
    assert (one.tasks[1], one.row(1).held) == (TaskState.QUEUED, False)


def test_f2_a_completed_job_that_is_requeued_runs_all_its_tasks_again(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.run(0)
    one.run(1)
    one.order(OrderKind.REQUEUE)
    one.notice()
    assert one.tasks == [TaskState.QUEUED, TaskState.QUEUED]


def test_f3_a_job_with_uncompleted_tasks_that_is_requeued_runs_these_only(one: Driven) -> None:
    one.submit(group(one.work(), one.work()))
    one.run(0)
    one.run(1, how="failed")
    one.order(OrderKind.REQUEUE)
    one.notice()
    assert one.tasks == [TaskState.COMPLETED, TaskState.QUEUED]

"""What a worker process leaves behind whose name another one bears, however late all that is told: on both databases.

A tracker that was away reads in one turn what the one has told until its end, and that the other has come.
"""

from dataclasses import replace

from jobrunner.states import TaskState
from tests.driven import Driven
from tests.simulation import Message, Worker


def begin(here: Driven) -> tuple[Worker, Message]:
    """Return the worker, and the message of the only task, which it is about to receive."""
    here.submit(here.work())
    worker = here.world.workers["worker"]
    here.world.read(worker)
    return worker, here.world.queue[0]


def restart(here: Driven, worker: Worker) -> None:
    """Let another process come under the name of a worker; nothing of what either tells is read yet."""
    here.world.flush(worker)
    here.world.kill(worker)
    here.world.come(worker.name, terminates=True)


def test_what_it_had_ended_does_not_run_again(here: Driven) -> None:
    worker, _ = begin(here)
    here.start()
    here.world.end(worker, worker.running[0], "succeeded")
    restart(here, worker)
    here.turn()
    assert here.tasks == [TaskState.COMPLETED]
    assert here.world.queue == []


def test_what_it_had_started_is_sent_again(here: Driven) -> None:
    worker, message = begin(here)
    here.world.prefetch(worker, message)
    here.world.start(worker, message)
    restart(here, worker)
    here.turn()
    assert [(one.retries, one.celery_id != message.celery_id) for one in here.world.queue] == [(1, True)]


def test_what_it_had_received_is_sent_again_by_whoever_does_that(here: Driven) -> None:
    here.world.redelivers = False
    worker, message = begin(here)
    here.world.prefetch(worker, message)
    restart(here, worker)
    here.turn()
    (again,) = here.world.queue
    assert (again.retries, again.redelivered) == (0, False)


def test_what_the_broker_gives_to_another_worker_is_sent_again_once_that_one_has_refused_it(here: Driven) -> None:
    worker, message = begin(here)
    here.world.prefetch(worker, message)
    restart(here, worker)
    here.turn()
    assert here.world.queue == [replace(message, redelivered=True)]
    here.world.work_on()
    here.world.work_on()
    assert here.tasks == [TaskState.COMPLETED]


def test_what_is_told_after_its_successor_was_heard_is_given_up_as_well(here: Driven) -> None:
    worker, message = begin(here)
    here.world.prefetch(worker, message)
    here.world.start(worker, message)
    late, worker.untold = worker.untold, []
    restart(here, worker)
    here.turn()
    here.world.log += late
    here.turn()
    assert here.tasks == [TaskState.QUEUED]
    assert [one.retries for one in here.world.queue] == [1]

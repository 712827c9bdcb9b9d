"""What tasks of a held job have sent is handed back by real workers, and forwarded as it was once the job goes on (C3).

Messages wait on a queue that nobody serves while their jobs are paused or canceled; then workers come.
"""

from collections import Counter
from typing import Any

import pytest
from celery import chain, group

from jobrunner.handle import Job
from jobrunner.states import JobState, TaskState
from tests.apps import read_rows
from tests.house import PATIENCE, House
from tests.waiting import until

#: Subtasks that a body calls: in the suite, and in the long form.
_CALLED, _MANY = 20, 100
#: What a task expands to.
_EXPANDED = 5
#: As long as no message of a broker should be, in characters.
_LONG = 200_000
#: Seconds until a retry, within which everybody is told that its job is held.
_LATER = 6


class Sender:
    """A job whose tasks have sent others to the second queue: called, as a link, and as what one has expanded to.

    A job of its own waits for its retry.
    """

    def __init__(self, house: House, name: str, called: int) -> None:
        self.house, self.name, self.called = house, name, called
        self.job = house.jobs.submit(self._canvas())
        self.retrying: Job | None = None

    def _canvas(self) -> Any:
        proj = self.house.proj
        link = self._task(self.called).set(queue="second")
        return group(
            proj.call.si(*(self._task(number).set(queue="second") for number in range(self.called))),
            self._task(self.called + 1).set(link=link),
            proj.expand.si(group(self._task(number).set(queue="second") for number in self._expanded)),
        )

    @property
    def _expanded(self) -> range:
        return range(self.called + 2, self.called + 2 + _EXPANDED)

    @property
    def sent(self) -> int:
        """How many messages its tasks have sent to the second queue."""
        return self.called + 1 + _EXPANDED

    def _task(self, number: int) -> Any:
        words = "x" * _LONG if number == 0 else "abc"
        return self.house.proj.need.si(number, words, str(self.house.home), self.house.path(self.name))

    def retry(self) -> None:
        """Let a task fail which is to be tried again later."""
        proj = self.house.proj
        canvas = chain(proj.second_try.si(-1, _LATER), proj.append.s(self.house.path(f"{self.name}-retried")))
        self.retrying = self.house.jobs.submit(canvas)

    @property
    def jobs(self) -> list[Job]:
        return [self.job, *([self.retrying] if self.retrying else [])]

    def ran(self) -> dict[str, int]:
        """Return how often each task has run, by what it was given."""
        return Counter(self.house.lines(self.name) + self.house.lines(f"{self.name}-retried"))

    @property
    def at_once(self) -> dict[str, int]:
        """What runs before anything is held."""
        return {f"{self.called + 1} 3": 1}

    @property
    def all(self) -> dict[str, int]:
        """What runs in the end."""
        others = [f"{number} 3" for number in range(1, self.called + 2 + _EXPANDED)]
        return dict.fromkeys([f"0 {_LONG}", *others, "-1"], 1)


def held(house: House, number: int) -> None:
    """Wait until so many messages are held."""
    rows = lambda: len(read_rows(house.jobs.database, "held_message"))  # noqa: E731
    until(lambda: rows() == number, timeout=PATIENCE, what=f"{number} messages to be held")


@pytest.mark.nodes
@pytest.mark.house_on("postgresql-rabbitmq", chaos=["sqlite-redis", "sqlite-rabbitmq", "postgresql-redis"])
@pytest.mark.parametrize("called", [_CALLED, pytest.param(_MANY, marks=pytest.mark.chaos)])
def test_what_tasks_have_sent_starts_once_when_their_job_is_resumed_and_never_if_it_was_canceled(
    house: House, called: int
) -> None:
    """Everybody is away, too, between the pause and the end of it."""
    house.broker()
    tracker, first = house.tracker(), house.worker(queues="celery")
    paused, canceled = Sender(house, "paused", called), Sender(house, "canceled", called)
    until(
        lambda: house.waiting("second") == paused.sent + canceled.sent, timeout=PATIENCE, what="all messages to be sent"
    )
    paused.retry()
    canceled.retry()
    for job in (paused.retrying, canceled.retrying):
        until(lambda job=job: job.view.counts.get(TaskState.SOFT_FAILED), timeout=PATIENCE, what="the tasks to fail")
    orders = [job.pause() for job in paused.jobs] + [job.cancel() for job in canceled.jobs]
    assert [one.wait(PATIENCE).outcome for one in orders] == ["done"] * 4

    second = house.worker("second", queues="second")
    held(house, called + 2)  # with the link and the retry; the tracker has what was expanded
    until(lambda: not house.waiting("second"), timeout=PATIENCE, what="all messages to be refused")
    assert [one.ran() for one in (paused, canceled)] == [paused.at_once, canceled.at_once]
    assert [job.state for job in paused.jobs] == [JobState.PAUSED] * 2
    for process in (tracker, first, second):
        process.kill()
    for process in (tracker, first, second):
        process.start()

    for job in paused.jobs:
        job.resume()
    for job in paused.jobs:
        assert job.wait(PATIENCE) is JobState.COMPLETED
        house.check_completed_once(job)
    assert paused.ran() == paused.all
    assert paused.retrying is not None
    assert [(task.delivery, task.retries) for task in paused.retrying.tasks()] == [(1, 1), (1, 0)]
    held(house, 0)
    assert canceled.ran() == canceled.at_once
    assert [job.state for job in canceled.jobs] == [JobState.CANCELED] * 2

"""Which workers without jobrunner live: they come with a word of their own, and go with one, or with silence."""

from tests.builders import event
from tracker.fold import Event
from tracker.lossy import LossyWorkers
from tracker.roster import SILENCE


def said(type_: str, worker: str = "w1@host") -> Event:
    return event(type_, worker=worker, type=type_, uuid="", source=None)


def test_a_worker_comes_with_its_first_heartbeat_and_is_told_once() -> None:
    workers = LossyWorkers()
    assert list(workers.hear([said("worker-heartbeat"), said("worker-heartbeat")], 0.0)) == ["w1@host"]
    assert workers.hear([said("worker-heartbeat")], 1.0) == {}
    assert workers.newly_heard() == {"w1@host"}
    assert workers.newly_heard() == set()


def test_one_that_comes_online_again_is_told_again() -> None:
    workers = LossyWorkers()
    workers.hear([said("worker-online")], 0.0)
    assert list(workers.hear([said("worker-online")], 1.0)) == ["w1@host"]


def test_one_that_says_goodbye_is_gone_and_not_silent() -> None:
    workers = LossyWorkers()
    moved = workers.hear([said("worker-online"), said("worker-offline")], 0.0)
    assert moved["w1@host"].type == "worker-offline"
    assert workers.silent(2 * SILENCE) == []


def test_a_client_that_sends_a_task_is_no_worker() -> None:
    assert LossyWorkers().hear([said("task-sent", "gen1@host"), said("task-started", "gen2@host")], 0.0) == {}


def test_whatever_a_worker_tells_shows_that_it_lives() -> None:
    workers = LossyWorkers()
    workers.hear([said("worker-online"), said("worker-online", "w2@host")], 0.0)
    workers.hear([said("task-started")], SILENCE)
    assert workers.silent(SILENCE + 1) == ["w2@host"]
    assert workers.silent(SILENCE + 1) == []


def test_everybody_has_a_full_time_out_after_a_takeover_and_when_the_broker_is_back() -> None:
    workers = LossyWorkers()
    workers.know(["w1@host"], 0.0)
    workers.hear([said("worker-online", "w2@host")], 0.0)
    workers.know((), SILENCE)
    assert workers.silent(SILENCE + 1) == []
    assert sorted(workers.silent(2 * SILENCE + 1)) == ["w1@host", "w2@host"]

"""What tasks add to their jobs, as events tell it and rows keep it: on both databases."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import Signature

from jobrunner import JobRunner, ids
from jobrunner.additions import Part, parts
from jobrunner.barrier import level_block
from jobrunner.errors import InvalidCanvasError
from tests.apps import give_up, new_runner, nobody_runs_it, read_rows
from tests.builders import event
from tests.turned import Turned
from tracker.fold import Event

PROCESS = "process-1"


class Growing(Turned):
    """A job to which tasks add."""

    def __init__(self, runner: JobRunner) -> None:
        super().__init__(runner)
        self.numbers = count()

    def tell(self, arrival: int, type_: str, *, retries: int = 0, process: str = PROCESS, **fields: Any) -> Event:
        task = self.tasks()[arrival]
        celery_id = ids.celery_id(task["id"], task["delivery"])
        return event(type_, uuid=celery_id, retries=retries, source=process, at=next(self.numbers), fields=fields)

    def adds(
        self,
        arrival: int,
        canvas: Signature,
        *,
        retries: int = 0,
        process: str = PROCESS,
        number: int = 0,
        expands: bool = False,
        execution: int = 0,
    ) -> list[Event]:
        """Tell that a task adds a canvas, as a worker tells it."""
        names = (f"{word} {arrival} {retries} {process} {execution}" for word in ("chain", "group"))
        told = parts(self.runner.app, canvas, chain=next(names), group=next(names), number=number, expands=expands)
        return [
            self.tell(arrival, "added", retries=retries, process=process, part=part.model_dump(mode="json"))
            for part in told
        ]

    def history(self) -> list[str]:
        return [row["line"] for row in read_rows(self.runner.database, "history") if row["new"] is None]


@pytest.fixture
def growing(tmp_path: Path, database_url: str) -> Iterator[Growing]:
    runner = new_runner(tmp_path, database=database_url)
    yield Growing(runner)
    runner.database.close()


def leaf(growing: Growing, number: int = 1) -> Signature:
    return growing.runner.app.tasks["add"].si(number, number)


def several(growing: Growing, number: int) -> Signature:
    return group(leaf(growing, one) for one in range(number))


def test_what_is_added_is_pending_until_its_creator_has_succeeded(growing: Growing) -> None:
    growing.submit(chain(leaf(growing), leaf(growing)))
    growing.turn(growing.tell(0, "started"), *growing.adds(0, several(growing, 2)))
    assert growing.states() == {0: "active", 1: "pending", 2: "pending", 3: "pending"}
    assert growing.job()["total"] == 4
    growing.turn(growing.tell(0, "succeeded"))
    assert growing.states() == {0: "completed", 1: "pending", 2: "queued", 3: "queued"}
    growing.turn(growing.tell(2, "succeeded"))
    assert growing.states()[1] == "pending"
    growing.turn(growing.tell(3, "succeeded"))
    assert growing.states()[1] == "queued"
    growing.turn(growing.tell(1, "succeeded"))
    assert (growing.job()["state"], growing.job()["outcome"]) == ("completed", "ok")


def test_parts_that_are_told_twice_count_once(growing: Growing) -> None:
    growing.submit(leaf(growing))
    added = growing.adds(0, several(growing, 3))
    growing.turn(growing.tell(0, "started"), *added, *added)
    growing.turn(*added)
    growing.turn(growing.tell(0, "succeeded"), *added)
    assert growing.states() == {0: "completed", 1: "queued", 2: "queued", 3: "queued"}


def test_a_large_addition_comes_in_parts_and_in_any_order(growing: Growing) -> None:
    growing.submit(leaf(growing))
    added = growing.adds(0, several(growing, 450))
    assert len(added) == 3
    growing.turn(growing.tell(0, "started"), added[2])
    growing.turn(added[1])
    growing.turn(added[0])
    growing.turn(growing.tell(0, "succeeded"))
    assert list(growing.states().values()) == ["completed"] + ["queued"] * 450


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_success_is_none_if_a_part_of_what_was_added_is_missing(growing: Growing, missing: int) -> None:
    growing.submit(chain(leaf(growing), leaf(growing)))
    added = growing.adds(0, several(growing, 450))
    del added[missing]
    growing.turn(growing.tell(0, "started"), *added, growing.tell(0, "succeeded"))
    assert growing.states() == {0: "failed", 1: "canceled"}
    assert "the event log has lost a part" in growing.job()["note"]
    growing.turn(growing.tell(0, "succeeded"))  # told twice: it stays so
    assert growing.job()["state"] == "failed"


def test_only_what_the_attempt_has_added_that_succeeds_is_kept(growing: Growing) -> None:
    growing.submit(leaf(growing))
    growing.turn(growing.tell(0, "started"), *growing.adds(0, several(growing, 2)))
    growing.turn(*growing.adds(0, several(growing, 3), retries=1))  # may be known before the end of the first try
    assert len(growing.states()) == 6
    growing.turn(growing.tell(0, "retried"), growing.tell(0, "started", retries=1))
    assert len(growing.states()) == 4
    assert [line.partition(" that ")[0] for line in growing.history()] == ["deleted 2 tasks"]
    growing.turn(growing.tell(0, "succeeded", retries=1))
    assert list(growing.states().values()) == ["completed"] + ["queued"] * 3


def test_of_two_processes_that_run_a_task_at_once_the_additions_of_one_are_kept(growing: Growing) -> None:
    growing.submit(leaf(growing))
    for process in ("one", "other"):
        growing.turn(growing.tell(0, "started", process=process))
        growing.turn(*growing.adds(0, several(growing, 2), process=process))
    assert len(growing.states()) == 5
    growing.turn(growing.tell(0, "succeeded", process="one"))
    assert list(growing.states().values()) == ["completed", "queued", "queued"]
    growing.turn(
        *growing.adds(0, leaf(growing), process="other", number=1), growing.tell(0, "succeeded", process="other")
    )
    assert list(growing.states().values()) == ["completed", "queued", "queued"]


def test_what_a_failed_creator_has_added_is_gone_and_numbers_are_not_given_twice(growing: Growing) -> None:
    growing.submit(group(leaf(growing), leaf(growing)))
    growing.turn(growing.tell(0, "started"), *growing.adds(0, several(growing, 2)))
    growing.turn(growing.tell(1, "started"), *growing.adds(1, leaf(growing)))
    growing.turn(growing.tell(0, "failed"))
    assert growing.states() == {0: "failed", 1: "active", 4: "pending"}
    growing.turn(*growing.adds(1, leaf(growing), number=1))
    assert growing.states() == {0: "failed", 1: "active", 4: "pending", 5: "pending"}
    assert {row["task_id"] for row in read_rows(growing.runner.database, "message")} == {
        row["id"] for row in growing.tasks().values()
    }
    growing.turn(growing.tell(1, "succeeded"), growing.tell(4, "succeeded"), growing.tell(5, "succeeded"))
    growing.turn(growing.tell(4, "succeeded"), growing.tell(5, "succeeded"))
    assert (growing.job()["state"], growing.job()["reason"]) == ("failed", "task")


def test_a_task_that_expands_has_its_value_elsewhere(growing: Growing) -> None:
    growing.submit(chain(leaf(growing), growing.runner.app.tasks["total"].s()))
    growing.turn(growing.tell(0, "started"), *growing.adds(0, several(growing, 2), expands=True))
    assert growing.tasks()[0]["value_group"] is None
    growing.turn(growing.tell(0, "succeeded"))
    assert growing.tasks()[0]["value_group"] == growing.tasks()[2]["yields_group"]
    growing.turn(growing.tell(2, "succeeded"), growing.tell(3, "succeeded"))
    assert growing.states()[1] == "queued"


def test_with_a_barrier_what_is_added_joins_the_levels_behind_its_creator(growing: Growing) -> None:
    growing.submit(group(chain(leaf(growing), leaf(growing)), leaf(growing)), barrier=True)
    growing.turn(growing.tell(0, "started"), *growing.adds(0, chain(leaf(growing), leaf(growing), leaf(growing))))
    growing.turn(growing.tell(0, "succeeded"))
    assert growing.states() == {0: "completed", 1: "pending", 2: "queued", 3: "pending", 4: "pending", 5: "pending"}
    assert [growing.tasks()[one]["sequence"] for one in range(6)] == [0, 1, 0, 1, 2, 3]
    assert growing.tasks()[1]["block_id"] == growing.tasks()[3]["block_id"] == level_block(growing.job()["id"], 1)
    for ending, opened in ((2, {1, 3}), (1, set()), (3, {4}), (4, {5})):
        before = growing.states()
        growing.turn(growing.tell(ending, "succeeded"))
        assert {one for one, state in growing.states().items() if state == "queued" != before[one]} == opened
    growing.turn(growing.tell(5, "succeeded"))
    assert growing.job()["state"] == "completed"


def test_with_a_barrier_a_level_that_had_ended_waits_again_for_what_a_task_adds_that_runs_again(
    growing: Growing,
) -> None:
    @growing.runner.task(name="again", shared=False, replayable=True)
    def again() -> None:
        """Do nothing, as often as need be."""

    total = growing.runner.app.tasks["total"].s()
    growing.submit(chord([again.si(), chain(leaf(growing), leaf(growing), leaf(growing))], total), barrier=True)
    for ended in ((0, 1), (2,), (3,)):
        growing.turn(*(growing.tell(one, "succeeded") for one in ended))
    lost = growing.tasks()[0]["id"]
    growing.turn(growing.tell(4, "failed", lost=[lost], exception="InputLostError()"))
    assert growing.states()[0] == "queued"
    growing.turn(growing.tell(0, "started"), *growing.adds(0, leaf(growing)), growing.tell(0, "succeeded"))
    assert growing.states() == {
        0: "completed", 1: "completed", 2: "completed", 3: "completed", 4: "pending", 5: "queued",
    }  # fmt: skip
    growing.turn(growing.tell(5, "succeeded"))
    assert growing.states()[4] == "queued"
    growing.turn(growing.tell(4, "succeeded"))
    assert growing.job()["state"] == "completed"


def test_tasks_that_were_added_add_tasks(growing: Growing) -> None:
    growing.submit(chain(leaf(growing), leaf(growing)))
    for creator in (0, 2, 3):
        growing.turn(growing.tell(creator, "started"), *growing.adds(creator, leaf(growing)))
        growing.turn(growing.tell(creator, "succeeded"))
    assert growing.states() == {0: "completed", 1: "pending", 2: "completed", 3: "completed", 4: "queued"}
    assert [growing.tasks()[one]["created_by"] for one in (2, 3, 4)] == [
        growing.tasks()[one]["id"] for one in (0, 2, 3)
    ]
    growing.turn(growing.tell(4, "succeeded"))
    assert growing.states()[1] == "queued"


def test_parts_come_back_from_json_as_they_went(growing: Growing) -> None:
    growing.runner.prepare_tasks()
    (part,) = parts(growing.runner.app, several(growing, 2), chain="c", group="g", number=0, expands=True)
    told = Part.model_validate(part.model_dump(mode="json"))
    assert told.model_dump() == part.model_dump()
    assert [dict(one.message) for one in told.tasks] == [dict(one.message) for one in part.tasks]
    assert b'"add"' not in told.tasks[0].message.body


def test_ids_that_a_body_chooses_are_refused_before_anything_is_told(growing: Growing) -> None:
    growing.runner.prepare_tasks()
    chosen = chain(leaf(growing), leaf(growing).set(task_id="mine"))
    with pytest.raises(InvalidCanvasError, match="'mine' is chosen"):
        list(parts(growing.runner.app, chosen, chain="c", group="g", number=0, expands=False))


@pytest.mark.parametrize("at_once", [False, True])
def test_of_what_a_process_adds_that_has_handed_its_task_back_the_last_is_kept(
    growing: Growing, *, at_once: bool
) -> None:
    growing.submit(leaf(growing))
    told = [growing.tell(0, "received"), growing.tell(0, "started"), *growing.adds(0, several(growing, 2))]
    told += [growing.tell(0, "rejected", requeue=True), growing.tell(0, "received"), growing.tell(0, "started")]
    told += [*growing.adds(0, several(growing, 3), execution=1), growing.tell(0, "succeeded")]
    for events in [told] if at_once else [[one] for one in told]:
        growing.turn(*events)
    assert list(growing.states().values()) == ["completed"] + ["queued"] * 3
    assert [line.partition(" that ")[0] for line in growing.history()] == ["deleted 2 tasks"]


def test_a_success_that_comes_too_late_says_nothing_about_the_task(growing: Growing) -> None:
    growing.submit(leaf(growing))
    for process in ("one", "other"):
        growing.turn(growing.tell(0, "started", process=process), *growing.adds(0, leaf(growing), process=process))
    growing.turn(growing.tell(0, "succeeded", process="one"))
    before = growing.tasks()[0]
    growing.turn(growing.tell(0, "succeeded", process="other"))
    assert growing.tasks()[0] == before


def test_a_success_is_none_if_it_has_added_something_after_its_task_was_given_up(growing: Growing) -> None:
    """Its worker was frozen: nobody can say any more what the job would have become."""
    runner = growing.runner
    runner.task(name="once", shared=False, max_retries=0)(nobody_runs_it)
    growing.submit(runner.app.tasks["once"].si())
    growing.turn(growing.tell(0, "started"))
    give_up(runner, "w1@host")
    assert growing.states() == {0: "failed"}
    growing.turn(*growing.adds(0, runner.app.tasks["add"].s(1, 2)), growing.tell(0, "succeeded"))
    assert growing.states() == {0: "failed"}
    assert "the event log has lost a part of what it had added" in growing.tasks()[0]["note"]

"""Canvases sent with Celery's own `apply_async`, by an app that never heard of jobrunner, and by one that has.

The expected tables are those of Celery itself: a group that stands alone has no root, so each of its tasks is one, and
the body of a chord belongs to the root of the header's task that ended last.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Signature, chain, chord, group
from celery.result import AsyncResult, GroupResult

from jobrunner.store import tracking
from tests.flower import Flower
from tests.house import PATIENCE, House, Process, on_each_broker
from tests.waiting import until

SHOP = "tests.integration.shop"

#: Name, state, name of the parent, Celery's retries.
Row = tuple[str, str, str | None, int]


class Shop:
    """A Celery application with its workers, on a broker that a tracker observes."""

    def __init__(self, house: House) -> None:
        self.house = house
        house.broker()
        self.broker, self.backend = house.app.conf.broker_url, house.app.conf.result_backend
        self.app = Celery("shop", broker=self.broker, backend=self.backend, set_as_current=False)
        # Results would tell their backend when nobody needs them any more, and wait for it if it has gone.
        self.app.backend.result_consumer.consume_from = lambda _: None

    def close(self) -> None:
        self.app.backend.client.close()
        self.app.close()

    def tracker(self) -> Process:
        return self.house.start("tracker", [sys.executable, "-m", "jobrunner.cli", "tracker", "-b", self.broker])

    def worker(self, name: str, *options: str, module: str = "celery") -> Process:
        argv = [sys.executable, "-m", module, "-A", SHOP, *(["worker"] if module == "celery" else [])]
        options = ("--without-mingle", "--without-gossip", "-l", "INFO", "-c", "2", "-n", f"{name}@shop", *options)
        settings = {"CELERY_BROKER_URL": self.broker, "CELERY_RESULT_BACKEND": self.backend}
        return self.house.start(name, [*argv, *options], **settings)

    def task(self, name: str, *args: Any, **options: Any) -> Signature:
        return self.app.signature(f"{SHOP}.{name}", args=args, **options)

    def hold(self, name: str) -> tuple[Signature, Path, Path]:
        """Return a task that waits for a file, that file, and the one which says that it runs."""
        path = self.house.home / name
        return self.task("hold", str(path)), path, path.with_suffix(".here")

    def cli(self, *arguments: str) -> str:
        """Return what a command of `jobrunner` prints."""
        ended = self.house.ask(*arguments)
        assert ended.code == 0, ended.err
        return ended.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json"))

    def tasks_of(self, roots: Iterable[str]) -> list[dict[str, Any]]:
        known = {one["id"] for one in self.json("list", "--all")}
        return [task for root in roots if root in known for task in self.json("tasks", root)]

    def shows(self, expected: Iterable[Row], roots: Iterable[str], *, what: str) -> None:
        """Wait until `jobrunner tasks` shows these tasks of these jobs, and no others."""
        wanted, found = sorted(expected, key=str), list[Row]()

        def seen() -> bool:
            found[:] = table(self.tasks_of(roots))
            return found == wanted

        try:
            until(seen, timeout=PATIENCE, what=what)
        except AssertionError:
            assert found == wanted, what
            raise


def table(tasks: Iterable[dict[str, Any]]) -> list[Row]:
    tasks = list(tasks)
    names = {task["id"]: task["name"].rpartition(".")[2] for task in tasks}
    rows = [(names[task["id"]], task["state"], names.get(task["created_by"]), task["retries"]) for task in tasks]
    return sorted(rows, key=str)


def sent(canvas: Signature, **options: Any) -> list[str]:
    """Send a canvas, and return the ids of all its results: each that is a root is a job."""
    found: list[str] = []
    todo = [canvas.apply_async(**options)]
    while todo:
        one = todo.pop()
        todo += [*(one.results if isinstance(one, GroupResult) else ()), *([one.parent] if one.parent else [])]
        found += [one.id] if isinstance(one, AsyncResult) else []
    return found


def canvases(task: Callable[..., Signature], app: Celery) -> dict[str, tuple[Signature, list[Row]]]:
    """Return canvases with what is to be seen of them."""
    add, total = partial(task, "add"), partial(task, "total")
    done = ("add", "completed", None, 0)
    after = ("add", "completed", "add", 0)
    return {
        "one task": (add(1, 2), [done]),
        "chain": (chain(add(1, 2), add(3), add(4)), [done, after, after]),
        "group": (group([add(1, 2), add(3, 4)], app=app), [done, done]),
        "chord": (
            chord([add(1, 2), add(3, 4)], total(), app=app),
            [done, done, ("total", "completed", "add", 0)],
        ),
        "chain with a group": (
            chain(add(1, 2), group([add(3), add(4)], app=app), total()),
            [done, after, after, ("total", "completed", "add", 0)],
        ),
        "retry": (task("again", 1, 2, 0.3), [("again", "completed", None, 2)]),
        "retry in a chain": (
            chain(add(1, 2), task("again", 1, 0.3)),
            [done, ("again", "completed", "add", 1)],
        ),
        "retries used up": (task("never"), [("never", "failed", None, 1)]),
        "failure in a chain": (chain(add(1, 2), task("broken"), add(3)), [done, ("broken", "failed", "add", 0)]),
        "sent from a task": (task("send", 1, 2), [("send", "completed", None, 0), ("add", "completed", "send", 0)]),
    }


@pytest.fixture
def shop(house: House, tmp_path: Path) -> Iterator[Shop]:
    """Return a shop where no setting of jobrunner is there but a folder, in which there is nothing."""
    for name in [name for name in house.environment if name.startswith("JOBRUNNER_")]:
        del house.environment[name]
    house.environment["JOBRUNNER_HOME"] = str(tmp_path / "alone")
    made = Shop(house)
    yield made
    made.close()


@on_each_broker
def test_an_unchanged_celery_app_is_seen_with_names_states_parents_and_retries_as_flower_sees_it(shop: Shop) -> None:
    tracker, loud, silent = shop.tracker(), shop.worker("loud", "-E"), shop.worker("quiet", "-Q", "quiet")
    flower = Flower(shop.house, "-b", shop.broker)
    tracker.says("Listening for plain events.")
    loud.says("loud@shop ready.")
    flower.hears("loud@shop")
    workers = lambda: {one["name"]: one for one in shop.json("workers")}  # noqa: E731
    until(lambda: len(workers()) == 2, timeout=PATIENCE, what="both workers to be heard")
    assert {(one["state"], one["lossy"]) for one in workers().values()} == {("online", True)}

    made = canvases(shop.task, shop.app)
    roots = {title: sent(canvas) for title, (canvas, _) in made.items()}
    (at_once,) = sent(shop.task("again", 1, 3))
    for title, (_, expected) in made.items():
        shop.shows(expected, roots[title], what=title)
    shop.shows([("again", "completed", None, 3)], [at_once], what="a task that is tried again at once")
    revokes(shop)
    quiet(shop)
    jobs = {one["id"]: one for one in shop.json("list", "--all")}
    assert {one["observed"] for one in jobs.values()} == {True}
    assert {one["state"] for one in jobs.values()} == {"completed", "failed", "canceled"}
    assert {one["name"].partition(".")[0] for one in jobs.values()} == {"tests"}
    tasks = [task for job_id in jobs for task in shop.json("tasks", job_id)]
    compare(flower, tasks, but=at_once)
    assert "is as it should be" in shop.cli("db", "check")
    assert silent.stop() == 0
    until(lambda: workers()["quiet@shop"]["state"] == "offline", timeout=PATIENCE, what="a worker to have gone")
    assert "observed   a plain Celery canvas" in shop.cli("show", at_once)
    assert "completed, observed" in shop.cli("list")


def revokes(shop: Shop) -> None:
    """Revoke a task that runs, and one that a worker has received and holds back."""
    running, _, here = shop.hold("terminated")
    (terminated,) = sent(running)
    until(here.exists, timeout=PATIENCE, what="the task to run")
    (late,) = sent(shop.task("add", 1, 2), countdown=3)
    log = shop.house.home / "loud.log"
    until(lambda: f"[{late}] received" in log.read_text(), timeout=PATIENCE, what="the late task to be received")
    shop.app.control.revoke(terminated, terminate=True)
    shop.app.control.revoke(late)
    expected: list[Row] = [("add", "canceled", None, 0), ("hold", "canceled", None, 0)]
    shop.shows(expected, [terminated, late], what="two revoked tasks")
    notes = {task["name"].rpartition(".")[2]: task["exception"] for task in shop.tasks_of([terminated, late])}
    assert notes == {"add": "revoked", "hold": "terminated, SIGTERM"}


def quiet(shop: Shop) -> None:
    """A worker that was started without -E has been asked for its events."""
    log = shop.house.home / "quiet.log"
    until(lambda: "enabled by remote" in log.read_text(), timeout=PATIENCE, what="the worker to be asked for events")
    roots = sent(chain(shop.task("add", 1, 2).set(queue="quiet"), shop.task("add", 3).set(queue="quiet")))
    expected: list[Row] = [("add", "completed", "add", 0), ("add", "completed", None, 0)]
    shop.shows(expected, roots, what="a chain on the quiet worker")


def compare(flower: Flower, tasks: list[dict[str, Any]], *, but: str) -> None:
    """See that Flower knows the same tasks.

    It does not know how a task ended that was tried again at once: Celery tells `retried` when the next try has begun,
    and Celery's own picture of a task, which is Flower's, forgets what that one told.
    """
    states = {"SUCCESS": "completed", "FAILURE": "failed", "REVOKED": "canceled"}

    def shown() -> dict[str, tuple[str, str | None, int]]:
        known = flower.api("tasks?limit=1000")
        return {
            uuid: (one["name"], states.get(one["state"]), one["retries"]) for uuid, one in known.items() if uuid != but
        }

    ours = {one["id"]: (one["name"], one["state"], one["retries"]) for one in tasks if one["id"] != but}
    odd = {uuid for uuid, one in ours.items() if one[0].endswith(".never")}
    for uuid in odd:
        del ours[uuid]
    until(
        lambda: {uuid: one for uuid, one in shown().items() if uuid not in odd} == ours,
        timeout=PATIENCE,
        what=f"Flower to show {ours}, not {shown()}",
    )


@pytest.mark.house_on("postgresql-redis")
def test_the_same_canvases_on_a_worker_with_jobrunner_are_observed_through_the_event_log_alone(house: House) -> None:
    shop = Shop(house)
    house.tracker()
    shop.worker("bound", module="workers").says("bound@shop ready.")
    made = canvases(shop.task, shop.app)
    roots = {title: sent(canvas) for title, (canvas, _) in made.items()}
    for title, (_, expected) in made.items():
        shop.shows(expected, roots[title], what=title)
    assert {one["name"]: one["lossy"] for one in shop.json("workers")} == {"bound@shop": False}
    ids = {task["id"] for task in shop.tasks_of(one["id"] for one in shop.json("list", "--all"))}
    with house.jobs.database.read() as connection:
        processes = {one.process for one in tracking.attempts_of(connection, ids)}
    assert len(processes) == 1, "copies for monitors are not taken for what another worker tells"
    assert "is as it should be" in shop.cli("db", "check")
    shop.close()

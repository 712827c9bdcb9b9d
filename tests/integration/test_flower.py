"""Flower, started by us, on a house with jobs in it: what it shows of every task, and with whom it gets along."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group

from jobrunner.states import ENDED_JOB
from tests.flower import Flower
from tests.house import PATIENCE, ROOT, House, on_each_broker, on_sqlite
from tests.waiting import until

pytestmark = on_sqlite

WORKER = "worker@house"


@pytest.fixture(scope="module")
def flower(running: House) -> Flower:
    found = Flower(running)
    found.hears(WORKER)
    return found


@pytest.fixture
def away(house: House) -> Iterator[House]:
    """Return a house whose settings name a broker that nobody runs, with a password."""
    house.environment["JOBRUNNER_BROKER"] = "redis://:hidden@127.0.0.1:1/0"
    yield house
    del house.environment["JOBRUNNER_BROKER"]


# ---- what it shows -----------------------------------------------------------------------------------------


@on_each_broker
def test_flower_shows_every_task_of_a_job_with_name_job_state_result_and_worker(running: House, flower: Flower) -> None:
    proj = running.proj
    # A retry at once would not do: Celery's worker tells of it when the second try has ended already, and Celery's own
    # picture of a task, which is Flower's, then shows RETRY for ever.
    first = group(proj.add.s(1, 2), proj.second_try.s(4, 0.5))
    job = running.jobs.submit(chain(first, proj.total.s(), group(proj.identity.s(), proj.fail.si("no"))))
    until(lambda: job.state in ENDED_JOB, timeout=PATIENCE, what="the job to end")
    tasks = {task.celery_id: task for task in job.tasks()}
    assert len(tasks) == 5

    def all_ended() -> dict[str, Any]:
        shown = flower.tasks_of(job.id)
        ended = [one for one in shown.values() if one["state"] in {"SUCCESS", "FAILURE"}]
        return shown if len(ended) == len(tasks) else {}

    shown = until(all_ended, timeout=PATIENCE, what="Flower to know the end of every task")
    assert {uuid: one["name"] for uuid, one in shown.items()} == {uuid: task.name for uuid, task in tasks.items()}
    assert {one["worker"] for one in shown.values()} == {WORKER}
    found = {one["name"].rpartition(".")[2]: one for one in shown.values()}
    assert {name: (one["state"], one["result"], one["exception"], one["retries"]) for name, one in found.items()} == {
        "add": ("SUCCESS", "3", None, 0),
        "second_try": ("SUCCESS", "4", "ValueError('not yet')", 1),
        "total": ("SUCCESS", "7", None, 0),
        "identity": ("SUCCESS", "7", None, 0),
        "fail": ("FAILURE", None, "ValueError('no')", 0),
    }
    assert found["add"]["args"] == "(1, 2)"
    assert found["total"]["args"] == "()", "what it takes came from the result backend, not with the message"
    assert "in fail\n" in found["fail"]["traceback"]


def test_flower_reads_values_from_the_result_backend(running: House, flower: Flower) -> None:
    job = running.jobs.submit(running.proj.add.s(20, 22))
    assert job.result(PATIENCE) == 42
    (task,) = job.tasks()
    assert flower.api(f"task/result/{task.celery_id}") == {
        "task-id": task.celery_id, "state": "SUCCESS", "result": 42,
    }  # fmt: skip


def test_a_task_shows_its_name_arguments_and_job_from_the_moment_it_is_sent(running: House, flower: Flower) -> None:
    gate = running.gate("open")
    job = running.jobs.submit(group(running.proj.hold.s(number, str(gate)) for number in range(12)))

    def in_all_states() -> dict[str, Any]:
        shown = flower.tasks_of(job.id)
        return shown if {one["state"] for one in shown.values()} == {"PENDING", "RECEIVED", "STARTED"} else {}

    shown = until(in_all_states, timeout=PATIENCE, what="tasks that are sent, received and started")
    assert {one["name"] for one in shown.values()} == {running.proj.hold.name}
    assert {one["args"] for one in shown.values()} <= {f"({number}, '{gate}')" for number in range(12)}
    tracker = running.tracker_holder()
    assert {one["client"] for one in shown.values()} == {tracker}
    gate.open()
    job.wait(PATIENCE)


def test_its_pages_answer_and_show_our_columns(running: House, flower: Flower) -> None:
    job = running.jobs.submit(running.proj.add.s(1, 2))
    job.wait(PATIENCE)
    (task,) = job.tasks()
    until(lambda: flower.tasks_of(job.id), timeout=PATIENCE, what="Flower to hear of the task")
    assert job.id in flower.page(f"/task/{task.celery_id}")
    assert WORKER in flower.page(f"/worker/{WORKER}")
    assert "celery" in flower.page("/broker")
    page = flower.page("/tasks")
    assert [column for column in ("args", "Result", "Retries") if column not in page] == []


def test_flower_goes_on_without_a_tracker(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    house.worker()
    flower = Flower(house)
    flower.hears(WORKER)
    job = house.jobs.submit(house.proj.add.s(1, 2))
    job.wait(PATIENCE)
    assert tracker.stop() == 0

    bare = house.proj.add.apply_async((2, 3))
    assert bare.get(PATIENCE) == 5
    ended = lambda: flower.api("tasks").get(bare.id, {}).get("state") == "SUCCESS"  # noqa: E731
    until(ended, timeout=PATIENCE, what="Flower to show a task that no job has sent")
    assert list(flower.tasks_of(job.id)) == [task.celery_id for task in job.tasks()]
    for path in ("/", "/tasks", f"/task/{bare.id}", "/broker", "/healthcheck"):
        assert flower.page(path)


# ---- how it is started, and how it ends --------------------------------------------------------------------


def test_it_listens_on_loopback_only(flower: Flower) -> None:
    assert flower.url == f"http://127.0.0.1:{flower.port}"
    assert answers("127.0.0.1", flower.port)
    # All of 127/8 is this machine; whoever listens everywhere also answers there.
    assert not answers("127.0.0.2", flower.port)


def answers(address: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        return client.connect_ex((address, port)) == 0


def test_a_port_in_use_is_told_with_what_to_do(running: House, flower: Flower) -> None:
    second = running.cli("flower", "--port", str(flower.port))
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: Flower cannot listen on 127.0.0.1:{flower.port} (Address already in use)")
    assert "hint: Choose another place with --port or --address." in second.stderr


@pytest.mark.parametrize("url", ["foo://host", "redis://:pa#ss@host/1"])
def test_a_broker_that_cannot_be_meant_is_refused_without_its_password(house: House, url: str) -> None:
    ended = house.cli("flower", "-b", url)
    assert ended.returncode == 2
    assert "is no URL of one" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "pa" not in ended.stderr.replace("password", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--port", "5556", "--port", "5557"], "Invalid value for '--port': given 2 times."),
        (["--prot=5556"], "Flower has no option '--prot=5556'"),
        (["--max_tasks", "10"], "Flower has no option '10'. Its options are written --name=value"),
        (["--max_tasks=many"], "Flower does not take its options"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(house: House, options: list[str], told: str) -> None:
    refused = house.cli("flower", *options)
    assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr


def test_without_the_package_it_says_what_to_install(house: House) -> None:
    absent = "import sys; sys.modules['flower'] = None; from jobrunner.cli import main; main()"
    process = house.start("absent", [sys.executable, "-c", absent, "flower"])
    assert process.popen.wait(PATIENCE) == 2
    assert "hint: Install it: pip install jobrunner[flower]." in process.text


def test_a_password_is_neither_in_the_list_of_processes_nor_printed(away: House) -> None:
    flower = Flower(away)
    assert "redis://:***@127.0.0.1:1/0" in flower.process.text
    command = Path(f"/proc/{flower.process.pid}/cmdline")
    if command.exists():
        assert "hidden" not in command.read_text()
    assert "hidden" not in flower.process.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_also_while_the_broker_is_away(away: House, number: int, code: int) -> None:
    flower = Flower(away)
    flower.process.says("Failed to capture events")  # it is busy with trying again
    flower.process.popen.send_signal(number)
    assert flower.process.popen.wait(PATIENCE) == code


def test_broker_and_result_backend_come_from_the_app(running: House) -> None:
    (running.home / "shop.py").write_text(
        f"from celery import Celery\napp = Celery('shop', broker='{running.app.conf.broker_url}')\n"
        f"app.conf.result_backend = '{running.app.conf.result_backend}'\n"
    )
    path = os.pathsep.join([str(running.home), str(ROOT)])
    flower = Flower(running, "-A", "shop", JOBRUNNER_BROKER="redis://127.0.0.1:1/0", PYTHONPATH=path)
    flower.hears(WORKER)
    job = running.jobs.submit(running.proj.add.s(1, 2))
    job.wait(PATIENCE)
    (task,) = job.tasks()
    assert flower.api(f"task/result/{task.celery_id}")["result"] == 3

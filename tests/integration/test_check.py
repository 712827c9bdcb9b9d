"""What the health checks of docker-compose.yml ask: the tracker's `--check`, and the worker's pid file."""

import subprocess
import sys

import yaml

from tests.house import PATIENCE, PROJ, ROOT, House, on_sqlite
from tests.waiting import until

pytestmark = on_sqlite


def check(house: House) -> tuple[object, str]:
    ended = house.ask("tracker", "--check")
    return ended.code, ended.out + ended.err


def test_it_fails_while_nobody_leads(house: House) -> None:
    code, text = check(house)
    assert code == 5
    assert text.startswith(f"error: No tracker leads in {house.home / 'jobrunner.db'}.")


def test_it_names_who_leads_and_fails_when_that_one_has_gone(house: House) -> None:
    house.broker()
    tracker = house.tracker()
    assert check(house) == (0, f"{house.tracker_holder()} leads.\n")
    assert tracker.stop() == 0
    assert check(house)[0] == 5


def test_it_says_what_keeps_the_leader_from_its_work(house: House) -> None:
    broker = house.broker()
    house.tracker()
    broker.kill()
    code, text = until(lambda: (found := check(house))[0] and found, timeout=PATIENCE, what="the leader's trouble")
    assert code == 5
    assert "cannot work: " in text


def test_the_check_of_a_worker_passes_while_it_is_there(house: House) -> None:
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    kind, check = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    there = next(one.partition("=")[2] for one in service["command"] if one.startswith("--pidfile="))
    assert there in check
    here = house.path("worker.pid")
    check = check.replace("$$", "$").replace(there, here)
    command = [one.replace(there, here) for one in service["command"]]
    healthy = lambda: subprocess.run(["/bin/sh", "-c", check], check=False, capture_output=True).returncode == 0  # noqa: E731

    assert not healthy()
    house.broker()
    worker = house.start("worker", [sys.executable, "-m", "jobrunner.cli", *command, "-A", PROJ, "-c", "1"])
    until(healthy, timeout=PATIENCE, what="the worker to be healthy")
    worker.says("ready.")
    assert worker.stop() == 0
    assert not healthy()

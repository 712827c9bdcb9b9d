"""One machine: the private broker, supervised children, and what is left when somebody is killed.

Every process here is real, and so is every signal.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from jobrunner.embedded import broker, guardian
from jobrunner.embedded.lock import hold_lock
from jobrunner.embedded.supervisor import Child, Supervisor, next_delay
from jobrunner.errors import ConfigurationError, RefusedError, UnreachableError
from tests.waiting import until

#: Celery 5.7 calls `setex`, which redis-py 8.1 would rather see spelled otherwise.
celerys_own_warnings = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="identifies processes with Linux's /proc")

ROOT = Path(__file__).parents[2]

#: A child that announces itself and its own child in a file. The latter never ends by itself, nor does the former where
#: told to be deaf: it only leaves a note that it was asked.
FAMILY = """
import os, signal, subprocess, sys
out, deaf = sys.argv[1:]
if deaf == "deaf":
    signal.signal(signal.SIGTERM, lambda *_: open(out + ".asked", "w").close())
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
with open(out + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace(out + ".new", out)
while True:
    signal.pause()
"""

#: What `jobrunner up` does, with a family in place of tracker and worker.
UP = """
import sys
from pathlib import Path
from jobrunner.embedded import broker
from jobrunner.embedded.lock import hold_lock
from jobrunner.embedded.supervisor import Child, Supervisor
family, home, deaf = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
with hold_lock(home) as lock, Supervisor(home=home, lock=lock, grace=2.0) as supervisor:
    process = supervisor.start(Child(name=broker.NAME, argv=broker.command(home), last=True))
    broker.wait_until_ready(home, process, give_up=supervisor.interrupted)
    for name in ("tracker", "worker"):
        supervisor.start(Child(name=name, argv=[sys.executable, "-c", family, str(home / name), deaf]))
    sys.exit(supervisor.run_until())
"""

#: What `jobrunner worker` does: one child, no folder, as much time as it needs.
WORKER = """
import sys
from pathlib import Path
from jobrunner.embedded.supervisor import Child, Supervisor
with Supervisor(grace=None) as supervisor:
    supervisor.start(Child(name="worker", argv=[sys.executable, "-c", *sys.argv[1:]]))
    sys.exit(supervisor.run_until())
"""

Start = Callable[..., "subprocess.Popen[str]"]


def family(out: Path, deaf: str = "") -> list[str]:
    return [sys.executable, "-c", FAMILY, str(out), deaf]


def members(out: Path) -> list[int]:
    """Wait for a family to announce itself, and return the pids of parent and child."""
    until(out.exists, what=f"{out.name} to announce itself")
    return [int(pid) for pid in out.read_text().split()]


def record(home: Path) -> dict[str, Any]:
    return dict(json.loads((home / "up.json").read_bytes()))


def gone(*pids: int) -> bool:
    return not any(guardian.alive(pid) for pid in pids)


def children(home: Path) -> list[int]:
    """Return the pids of all that runs below `up`, once all of it does."""
    families = [*members(home / "tracker"), *members(home / "worker")]
    running = record(home)["children"]
    assert set(running) == {"broker", "tracker", "worker"}
    return [*running.values(), *families]


def client(home: Path) -> "redis.Redis":
    return redis.Redis(unix_socket_path=str(broker.socket_path(home)), decode_responses=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of an `up`, and end what a failed test has left there."""
    home = tmp_path / "home"
    yield home
    with hold_lock(home):
        pass


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that runs one of the scripts above; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", script, FAMILY, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # the guardian ends the rest
        process.communicate()


@pytest.fixture
def supervisor(home: Path) -> Iterator[Supervisor]:
    with hold_lock(home) as lock, Supervisor(home=home, lock=lock, grace=2.0) as supervisor:
        yield supervisor


@pytest.fixture
def server(home: Path, supervisor: Supervisor) -> "subprocess.Popen[bytes]":
    process = supervisor.start(Child(name=broker.NAME, argv=broker.command(home), last=True))
    assert broker.wait_until_ready(home, process)
    return process


# ---------------------------------------------------------------------------------------------------------- the broker


@celerys_own_warnings
def test_celery_uses_the_embedded_broker_for_messages_and_results(home: Path, server: object) -> None:
    assert server
    app = Celery(broker=broker.url(home), backend=broker.url(home))
    app.backend.set("key", b"value")
    assert app.backend.get("key") == b"value"
    with app.connection() as connection:
        connection.ensure_connection(max_retries=1)
        queue = connection.SimpleQueue("queue")
        queue.put({"n": 1})
        assert queue.get(timeout=5).payload == {"n": 1}
        queue.close()
    app.backend.client.close()


@celerys_own_warnings
def test_a_path_with_any_character_becomes_a_usable_url(tmp_path: Path) -> None:
    home = tmp_path / "a b%20;é?#"
    with hold_lock(home) as lock, Supervisor(home=home, lock=lock) as supervisor:
        process = supervisor.start(Child(name=broker.NAME, argv=broker.command(home), last=True))
        assert broker.wait_until_ready(home, process)
        app = Celery(broker=broker.url(home), backend=broker.url(home))
        app.backend.set("key", b"value")
        with app.connection() as connection:
            connection.ensure_connection(max_retries=1)
        app.backend.client.close()


def test_nobody_else_can_reach_the_broker(home: Path, server: object) -> None:
    assert server
    assert broker.socket_path(home).stat().st_mode & 0o777 == 0o700
    assert (home / "broker").stat().st_mode & 0o777 == 0o700
    with client(home) as redis_client:
        assert redis_client.config_get("port") == {"port": "0"}
        assert redis_client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_what_the_broker_acknowledged_survives_its_kill(
    home: Path, supervisor: Supervisor, server: "subprocess.Popen[bytes]"
) -> None:
    with client(home) as redis_client:
        redis_client.set("key", "value")
    server.kill()
    supervisor.run_until(lambda: record(home)["children"].get("broker", server.pid) != server.pid)
    until(lambda: broker.ping(home), what="the broker to be back")
    with client(home) as redis_client:
        assert redis_client.get("key") == "value"


def test_a_broker_that_cannot_start_says_why(home: Path, supervisor: Supervisor) -> None:
    argv = [*broker.command(home), "--no-such-option", "1"]
    process = supervisor.start(Child(name=broker.NAME, argv=argv, last=True))
    with pytest.raises(UnreachableError, match=r"(?s)ended with code 1.*no-such-option.*up\.log"):
        broker.wait_until_ready(home, process)


def test_a_long_path_gets_a_socket_in_a_private_temporary_folder(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / "home"
    with hold_lock(home) as lock, Supervisor(home=home, lock=lock) as supervisor:
        process = supervisor.start(Child(name=broker.NAME, argv=broker.command(home), last=True))
        assert broker.wait_until_ready(home, process)
        folder = broker.socket_path(home).parent
        assert folder.name.startswith(f"jobrunner-{os.getuid()}-")
        assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()  # and the socket is gone


def test_a_temporary_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20)
    folder = broker.socket_path(home).parent
    try:
        folder.chmod(0o777)  # the very thing under test
        with pytest.raises(ConfigurationError, match="only you"):
            broker.url(home)
        folder.rmdir()
        folder.symlink_to(tmp_path)
        with pytest.raises(ConfigurationError, match="only you"):
            broker.url(home)
    finally:
        folder.unlink()


def test_a_broker_that_nobody_supervises_is_shut_down_before_a_new_start(home: Path) -> None:
    stray = subprocess.Popen(broker.command(home), stdout=subprocess.DEVNULL)
    try:
        assert broker.wait_until_ready(home, stray)
        with client(home) as redis_client:
            redis_client.set("key", "value")
        with hold_lock(home):
            assert stray.wait(timeout=5) == 0
            assert not broker.socket_path(home).exists()
    finally:
        stray.kill()
        stray.wait()


# ------------------------------------------------------------------------------------------------------- the supervisor


def test_a_killed_child_is_started_again_without_what_it_left_behind(home: Path) -> None:
    restarts: list[tuple[str, int, float]] = []
    out = home / "worker"
    with (
        hold_lock(home) as lock,
        Supervisor(home=home, lock=lock, on_restart=lambda *restart: restarts.append(restart)) as supervisor,
    ):
        first = supervisor.start(Child(name="worker", argv=family(out)))
        pids = members(out)
        out.unlink()
        first.kill()
        supervisor.run_until(out.exists)
        assert restarts == [("worker", -signal.SIGKILL, 0.5)]
        assert gone(*pids)
        assert record(home)["children"]["worker"] == members(out)[0] != first.pid


def test_a_child_that_is_not_to_be_restarted_ends_the_watch(home: Path, supervisor: Supervisor) -> None:
    supervisor.start(Child(name="once", argv=["true"], restart=False))
    assert supervisor.run_until() is None
    assert record(home)["children"] == {}


def test_pauses_between_restarts_double_up_to_ten_seconds_and_start_over_after_a_good_run() -> None:
    pauses = [0.0]
    for _ in range(7):
        pauses.append(next_delay(pauses[-1], ran=1))
    assert pauses[1:] == [0.5, 1, 2, 4, 8, 10, 10]
    assert next_delay(10, ran=30) == 0.5


def test_children_read_nothing_see_their_environment_and_write_to_the_log(home: Path, supervisor: Supervisor) -> None:
    argv = ["sh", "-c", "cat; echo $GREETING"]
    supervisor.start(Child(name="once", argv=argv, environment={"GREETING": "good day"}, restart=False))
    supervisor.run_until()
    assert "good day" in (home / "up.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_and_the_pid_file(home: Path, start: Start, number: signal.Signals) -> None:
    up = start(UP, home, "")
    pids = children(home)
    up.send_signal(number)
    assert up.wait(timeout=10) == number
    assert gone(*pids)
    assert not (home / "up.json").exists()
    assert not broker.socket_path(home).exists()


def test_deaf_children_are_killed_when_their_time_is_over(home: Path, start: Start) -> None:
    up = start(UP, home, "deaf")
    pids = children(home)
    up.terminate()
    assert up.wait(timeout=10) == signal.SIGTERM
    assert gone(*pids)


#: Says so when it is asked to end, and ends when it is told to hurry.
BUSY = """
import signal, sys
from pathlib import Path
out = Path(sys.argv[1])
def hurry(*_):
    out.with_suffix(".hurried").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: out.with_suffix(".asked").touch())
signal.signal(signal.SIGQUIT, hurry)
out.touch()
while True:
    signal.pause()
"""


def test_a_second_signal_tells_a_child_that_can_be_told_to_hurry(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "worker"
    program = WORKER.replace("*sys.argv[1:]])", f"{BUSY!r}, *sys.argv[2:]], hurry=signal.SIGQUIT)")
    worker = start(f"import signal\n{program}", out)
    until(out.exists, timeout=20, what="the child to be there")
    worker.terminate()
    until(out.with_suffix(".asked").exists, timeout=20, what="the child to be asked")
    worker.terminate()
    assert worker.wait(timeout=20) == signal.SIGTERM
    assert out.with_suffix(".hurried").exists()


def test_a_second_signal_kills_at_once(tmp_path: Path, start: Start) -> None:
    """`jobrunner worker` waits for its child without limit: only the second signal ends this one."""
    worker = start(WORKER, tmp_path / "worker", "deaf")
    pids = members(tmp_path / "worker")
    worker.send_signal(signal.SIGINT)
    until((tmp_path / "worker.asked").exists, what="the child to be asked")
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=5) == signal.SIGINT
    assert gone(*pids)


# -------------------------------------------------------------------------------------------------------------- kill -9


@pytest.mark.parametrize("deaf", ["", "deaf"])
def test_nothing_outlives_a_killed_up_for_ten_seconds(home: Path, start: Start, deaf: str) -> None:
    up = start(UP, home, deaf)
    pids = children(home)
    up.kill()
    until(lambda: gone(*pids), timeout=10, what="everything to end")


def test_nothing_outlives_a_killed_worker_command(tmp_path: Path, start: Start) -> None:
    worker = start(WORKER, tmp_path / "worker", "")
    pids = members(tmp_path / "worker")
    worker.kill()
    until(lambda: gone(*pids), timeout=10, what="everything to end")


def test_a_second_up_in_the_same_folder_is_refused_with_the_pid(home: Path, start: Start) -> None:
    up = start(UP, home, "")
    children(home)
    with (
        pytest.raises(RefusedError, match=rf"already runs here \(pid {up.pid}, folder .*JOBRUNNER_HOME"),
        hold_lock(home),
    ):
        pass
    assert up.poll() is None


def test_an_up_right_after_a_kill_waits_for_the_guardian_and_finds_the_data(home: Path, start: Start) -> None:
    first = start(UP, home, "deaf")
    pids = children(home)
    with client(home) as redis_client:
        redis_client.set("key", "value")
    for name in ("tracker", "worker"):
        (home / name).unlink()
    first.kill()
    second = start(UP, home, "")
    until((home / "worker").exists, timeout=20, what="the second up to be there")
    assert gone(*pids)
    assert record(home)["pid"] == second.pid
    with client(home) as redis_client:
        assert redis_client.get("key") == "value"


@needs_proc
def test_an_up_after_up_and_guardian_were_killed_ends_what_they_left(home: Path, start: Start) -> None:
    up = start(UP, home, "deaf")
    pids = children(home)
    up.send_signal(signal.SIGSTOP)  # or it would replace the guardian
    os.kill(guardian_of(up.pid), signal.SIGKILL)
    up.kill()
    assert not gone(*pids)
    with hold_lock(home):
        assert gone(*pids)


@needs_proc
def test_a_killed_guardian_is_replaced(home: Path, start: Start) -> None:
    up = start(UP, home, "")
    pids = children(home)
    first = guardian_of(up.pid)
    os.kill(first, signal.SIGKILL)
    until(lambda: guardian_of(up.pid) not in (0, first), what="another guardian")
    up.kill()
    until(lambda: gone(*pids), timeout=10, what="everything to end")


@needs_proc
def test_a_recorded_pid_that_belongs_to_somebody_else_now_is_left_alone(home: Path) -> None:
    home.mkdir()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        found = {"pid": 999_999_999, "children": {"worker": stranger.pid}, "births": {"worker": "an earlier boot 1"}}
        (home / "up.json").write_text(json.dumps(found))
        with hold_lock(home):
            assert stranger.poll() is None
        stranger.kill()


def test_the_guardian_starts_quickly_and_ends_with_its_input() -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", guardian.__file__], input=b"", check=True)
    assert time.monotonic() - began < 2


def guardian_of(pid: int) -> int:
    """Return the pid of a process's guardian, or 0 while it has none."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if guardian.alive(int(child)) and guardian.__file__.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return 0

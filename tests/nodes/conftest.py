"""Our own nodes beside those of pytest-celery: tracker, standby tracker and database; and the way to submit."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from celery import Celery, _state
from pytest_celery import CELERY_RABBITMQ_BROKER, CELERY_REDIS_BROKER, CeleryTestBroker, CeleryTestSetup

from jobrunner import JobRunner
from tests.house import Gate
from tests.nodes import tasks
from tests.process import Process
from tests.servers.postgres import Postgres
from tests.servers.server import Program


@pytest.fixture(params=[CELERY_REDIS_BROKER, CELERY_RABBITMQ_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> Iterator[CeleryTestBroker]:
    """Return each broker in turn; pytest-celery's own list is a set, whose order differs from run to run."""
    broker: CeleryTestBroker = request.getfixturevalue(request.param)
    yield broker
    broker.teardown()


@pytest.fixture(scope="session")
def bound_workers(pytestconfig: pytest.Config) -> None:
    """Skip where workers are containers, which do not have this package; of the session, so that it comes first."""
    if pytestconfig.getoption("--nodes") == "docker":
        pytest.skip("the workers of --nodes=docker are Celery's own, not bound to jobrunner")


@pytest.fixture
def current_app_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest-celery make its app the current one for this test only."""
    monkeypatch.setattr(_state._tls, "current_app", None)


@pytest.fixture
def celery_setup_app(current_app_as_before: None, celery_setup_app: Celery) -> Iterator[Celery]:  # noqa: ARG001
    """Return the setup's app, and let go of its connections in the end."""
    yield celery_setup_app
    celery_setup_app.backend.client.connection_pool.disconnect()
    celery_setup_app.close()


@pytest.fixture
def default_worker_tasks(default_worker_tasks: set[ModuleType]) -> set[ModuleType]:
    """Return the modules that workers have: ours too."""
    return {*default_worker_tasks, tasks}


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a database on the session's server, which `postgres` can stop."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def jobs(celery_setup: CeleryTestSetup, database: str) -> Iterator[JobRunner]:
    """Return a runner on the setup's app."""
    runner = JobRunner(celery_setup.app, database=database)
    yield runner
    runner.database.close()


@pytest.fixture
def tracker(request: pytest.FixtureRequest, jobs: JobRunner, tmp_path: Path) -> Iterator[Program]:
    """Return a tracker that leads; a parameter is Python that it runs first."""
    yield from _tracker("tracker", jobs, tmp_path, ready="Tracking;", before=getattr(request, "param", ""))


@pytest.fixture
def standby(tracker: Program, jobs: JobRunner, tmp_path: Path) -> Iterator[Program]:
    """Return a second tracker, which waits."""
    assert tracker.running
    yield from _tracker("standby", jobs, tmp_path, ready="standing by")


def _tracker(name: str, jobs: JobRunner, folder: Path, *, ready: str, before: str = "") -> Iterator[Program]:
    environment = {
        **os.environ,
        "JOBRUNNER_HOME": str(folder),
        "JOBRUNNER_DATABASE": jobs.database.url.render_as_string(hide_password=False),
        "JOBRUNNER_BROKER": jobs.app.conf.broker_url,
        "JOBRUNNER_RESULT_BACKEND": jobs.app.conf.result_backend,
    }
    program = f"{before}\nfrom jobrunner.cli import main\nmain()"
    process = Process([sys.executable, "-c", program, "tracker"], log=folder / f"{name}.log", environment=environment)
    tracker = Program(name, process, ready=ready).start()
    yield tracker
    tracker.kill()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a gate for `tasks.hold`, which opens in the end."""
    gate = Gate(tmp_path / "open")
    yield gate
    gate.open()

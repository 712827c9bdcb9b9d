"""The fixtures of pytest-celery that make containers, overridden by ones that start processes.

Registered by tests/conftest.py unless `--nodes=docker`; everything else of pytest-celery stays as it is.
"""

import os
from collections.abc import Iterator

import pytest
from pytest_celery import CeleryWorkerContainer

from tests.nodes.containers import LocalRabbitMQ, LocalRedis, LocalWorker
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis import Redis


@pytest.fixture
def default_redis_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """Return a Redis for messages."""
    yield from _redis(tmp_path_factory)


@pytest.fixture
def default_redis_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """Return a Redis for results, which is not killed with the broker."""
    yield from _redis(tmp_path_factory)


def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    server = Redis(tmp_path_factory.mktemp("n")).start()
    yield LocalRedis(server, server.url)
    server.close()


@pytest.fixture
def default_rabbitmq_broker(rabbitmq: RabbitMQ) -> Iterator[LocalRabbitMQ]:
    """Return a virtual host of the session's node: starting one takes seconds."""
    url = rabbitmq.new_vhost()
    yield LocalRabbitMQ(rabbitmq, url)
    rabbitmq.delete_vhost(url)


@pytest.fixture
def default_worker_container_cls() -> type[CeleryWorkerContainer]:
    """Return ours, which knows the command."""
    return LocalWorker


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[CeleryWorkerContainer]:
    """Return ours."""
    return LocalWorker


@pytest.fixture
def default_worker_container(
    tmp_path_factory: pytest.TempPathFactory,
    default_worker_command: list[str],
    default_worker_env: dict[str, str],
    default_worker_initial_content: dict[str, bytes],
) -> Iterator[LocalWorker]:
    """Return a worker."""
    yield from _worker(tmp_path_factory, default_worker_command, default_worker_env, default_worker_initial_content)


@pytest.fixture
def other_worker_container(
    tmp_path_factory: pytest.TempPathFactory,
    default_worker_command: list[str],
    default_worker_env: dict[str, str],
    default_worker_initial_content: dict[str, bytes],
) -> Iterator[LocalWorker]:
    """Return another worker of the same app."""
    yield from _worker(tmp_path_factory, default_worker_command, default_worker_env, default_worker_initial_content)


def _worker(
    tmp_path_factory: pytest.TempPathFactory, command: list[str], environment: dict[str, str], content: dict[str, bytes]
) -> Iterator[LocalWorker]:
    home = tmp_path_factory.mktemp("worker")
    worker = LocalWorker.launch(home, command, os.environ | environment, content)
    yield worker
    worker.service.kill()

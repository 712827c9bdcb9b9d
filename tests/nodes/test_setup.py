"""The setup of pytest-celery itself, the same on processes and on containers."""

import pytest
from celery import chord
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup

from tests.nodes import tasks

pytestmark = pytest.mark.nodes


def test_tasks_sent_without_a_job_run_as_ever_also_after_a_restart(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(ping=True, control=True)
    celery_setup.worker.restart()
    canvas = chord([tasks.total.s([number, 1]) for number in range(3)], tasks.total.s())
    assert canvas.apply_async().get(timeout=RESULT_TIMEOUT) == 6

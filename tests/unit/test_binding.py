"""What binding durable jobs to a Celery app leaves behind."""

import gc
import weakref
from pathlib import Path

from celery import Celery

from tests.apps import new_runner


def _app(folder: Path) -> weakref.ref[Celery]:
    """Return an app that was bound, and finalized, which nobody needs any more."""
    folder.mkdir()
    runner = new_runner(folder)
    runner.prepare_tasks()
    runner.database.close()
    return weakref.ref(runner.app)


def test_an_app_that_nobody_needs_any_more_goes_with_its_runner(tmp_path: Path) -> None:
    """Tests of a project make one after the other; Celery itself keeps the last one."""
    apps = [_app(tmp_path / str(number)) for number in range(3)]
    gc.collect()
    assert [app() for app in apps[:2]] == [None, None]

"""The Python that the pages in docs/ show runs as it stands there, from the top of each page to its end.

Tests that a page shows are run by `tests/integration/test_readme.py`.
"""

import builtins
import dis
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from celery import chain

from jobrunner import JobRunner
from jobrunner.testing import run
from tests.apps import new_runner, store, take_turn

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = {
    page.name: [
        block for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "def test_" not in block
    ]
    for page in sorted(DOCS.rglob("*.md"))
}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobRunner]:
    made = new_runner(tmp_path)
    yield made
    made.database.close()


def given(jobs: JobRunner, page: str) -> dict[str, Any]:
    """Return what a page takes for granted: an app, its runner, and of two pages a job that is there."""
    known: dict[str, Any] = {"__name__": f"docs.{page}", "app": jobs.app, "jobs": jobs}
    anything = jobs.app.tasks["anything"]
    if page == "dependencies.md":
        known |= {"load": anything.si, "report": anything.si}
    if page == "orders.md":
        job = jobs.get(store(jobs, chain(anything.si(), anything.si())))
        known |= {"job_id": job.id, "task_id": job.tasks()[1].id}
    return known


def unknown_names(code: CodeType, known: dict[str, Any]) -> set[str]:
    """Return the names that a block, or a function in it, would look for in vain."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    wanted = {name for name in _globals_of(code) if name not in known and not hasattr(builtins, name)}
    return wanted.union(*(unknown_names(one, known) for one in inner))


def _globals_of(code: CodeType) -> set[str]:
    return {str(one.argval) for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}


def shown(page: str, known: dict[str, Any]) -> dict[str, Any]:
    """Run a page, and return the names that it has made. In a thread: an app becomes the current one of its thread."""

    def read() -> None:
        for number, block in enumerate(BLOCKS[page]):
            code = compile(block, f"{page}, block {number}", "exec")
            exec(code, known)  # noqa: S102  our own page
            assert unknown_names(code, known) == set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(read).result()
    return known


@contextmanager
def tracked(jobs: JobRunner) -> Iterator[None]:
    """Let a tracker take turns meanwhile."""
    done = threading.Event()

    def turns() -> None:
        while not done.wait(0.01):
            take_turn(jobs)

    tracker = threading.Thread(target=turns)
    tracker.start()
    try:
        yield
    finally:
        done.set()
        tracker.join()


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks and page != "partial.md"])
def test_what_a_page_shows_runs(jobs: JobRunner, page: str) -> None:
    with tracked(jobs):
        shown(page, given(jobs, page))


def test_the_tasks_of_the_page_on_partial_tasks_end_as_it_says(jobs: JobRunner, tmp_path: Path) -> None:
    known = shown("partial.md", given(jobs, "partial.md"))
    stat, find, resize = (known[name] for name in ("stat", "find", "resize"))
    (tmp_path / "file").write_text("four")
    assert run(stat.s([])).tasks()[0].state == "skipped"
    job = run(stat.s([str(tmp_path / "file"), str(tmp_path / "none")]), on_partial="tolerate")
    assert (job.outcome, job.items and job.items.failed) == ("with-errors", 1)
    assert job.result() == [[str(tmp_path / "file"), 4]]
    skipped = run(chain(find.s(str(tmp_path)), resize.s()))
    assert [(one.state, one.reason) for one in skipped.tasks()] == [("completed", None), ("skipped", "said")]

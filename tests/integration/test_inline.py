"""Jobs that run inline, beside the same jobs in a house: they come to the same, and so do all of their tasks."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Signature, chain, chord, group

from jobrunner.handle import Job
from jobrunner.testing import run
from tests.house import PATIENCE, House, on_sqlite

pytestmark = on_sqlite

#: By name: what makes the canvas of the tasks and of a path for traces, and how it is submitted.
CASES: dict[str, tuple[Callable[[ModuleType, str], Signature], dict[str, Any]]] = {
    "a failure": (
        lambda p, _: chain(group(chain(p.fail.s(1), p.identity.s()), p.identity.s(2)), p.total.s()), {}),
    "two failures that propagate": (
        lambda p, _: group(chain(p.fail.s("a"), p.identity.s()), chord([p.fail.s("b"), p.identity.s(1)], p.total.s())),
        {"propagate_failures": True}),
    "a barrier": (lambda p, _: group(p.fail.s("a"), chain(p.identity.s(1), p.identity.s())), {"barrier": True}),
    "a threshold": (lambda p, _: chain(p.identity.s(1), p.fail.s(), p.identity.s()), {"threshold": 0.3}),
    "a rule": (lambda p, _: group(chain(p.fail.s("a"), p.identity.s())), {"on_failure": "cancel"}),
    "retries that help": (lambda p, path: chain(p.fail_times.s("value", 2, path), p.identity.s()), {}),
    "retries that do not": (lambda p, path: chain(p.fail_times.s("value", 9, path), p.identity.s()), {}),
    "a retry with its value": (lambda p, _: chain(p.identity.s("value"), p.second_try.s(0)), {}),
    "retries without end": (lambda p, path: p.retry_for_ever.s(path), {}),
    "Ignore": (lambda p, path: p.end_oddly.s("ignore", path), {}),
    "Reject": (lambda p, path: p.end_oddly.s("reject", path), {}),
    "progress": (lambda p, _: p.report_in_turn.s([0.5], [0.25, 1.0]), {}),
    "no progress": (lambda p, _: p.report_in_turn.s([0.5], [0.25]), {}),
    "additions": (lambda p, path: chain(p.add_children.s(3, path), p.append.s(path)), {}),
    "additions that fail": (lambda p, path: chain(p.add_children_and_fail.s(2, path), p.identity.s()), {}),
    "what a task sends": (lambda p, _: chain(p.call.s(p.identity.s(1), p.fail.s("sent")), p.identity.si(2)), {}),
    "items that failed": (lambda p, _: chain(p.process.s(["a", "b", "c"], ["b"]), p.identity.s()), {}),
    "items that failed, tolerated": (
        lambda p, _: group(p.process.s(["a", "b"], ["b"]), p.process.s(["c"], ["c"])), {"on_partial": "tolerate"}),
    "items and a failure": (lambda p, _: group(p.process.s(["a"], ["a"]), p.fail.s("no")), {}),
    "nothing to do": (lambda p, _: chain(p.skip.s("a value", "no use"), p.identity.s()), {}),
    "more, in part": (lambda p, _: chain(p.expand_in_part.s(p.identity.s("more")), p.identity.s()), {}),
    "what comes next skipped": (
        lambda p, _: chain(p.find_none.s([1]), group(p.fail.s(), chain(p.fail.s(), p.fail.s())), p.identity.s()), {}),
    "some of it skipped": (
        lambda p, _: chain(p.find_none.s([1], p.fail.name), group(p.fail.s(), p.identity.s()), p.identity.s()), {}),
    "nothing to take": (
        lambda p, _: chain(group(p.identity.s([]), p.identity.s()), p.total_of_any.s(), p.identity.s()), {}),
    "nothing but what was skipped": (lambda p, _: chain(p.find_none.s([]), p.fail.s(), p.total_of_any.s()), {}),
    "nothing": (lambda _p, _: group([]), {}),
}  # fmt: skip


def told(job: Job) -> dict[str, Any]:
    """Return what people are told of a job and its tasks, without ids; what tasks have sent comes in any order."""
    view = job.view
    tasks = [
        (one.created_by is None and one.arrival, one.name, one.state, one.reason, _masked(one.note), one.retries,
         one.sequence, one.items, one.progress, one.said, _masked(one.exception), _masked(one.result))
        for one in job.tasks()
    ]  # fmt: skip
    return {
        "job": (view.state, view.reason, view.outcome, _masked(view.note), view.total, view.counts, job.items),
        "tasks": sorted(tasks, key=repr),
    }


def _masked(text: str | None) -> str | None:
    return None if text is None else re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)


def test_a_job_that_runs_inline_comes_to_what_it_comes_to_in_a_house(running: House, tmp_path: Path) -> None:
    def canvas(name: str, where: str) -> Signature:
        return CASES[name][0](running.proj, str(tmp_path / f"{name} {where}"))

    jobs = {name: running.jobs.submit(canvas(name, "house"), **options) for name, (_, options) in CASES.items()}
    for job in jobs.values():
        job.wait(PATIENCE)
    for name, (_, options) in CASES.items():
        inline = run(canvas(name, "inline"), app=running.jobs, **options)
        assert (name, told(inline)) == (name, told(jobs[name]))

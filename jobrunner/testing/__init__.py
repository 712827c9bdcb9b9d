"""Tests of your jobs: a canvas or a named job runs inline, in this process and thread, and has ended in milliseconds.

    from jobrunner.testing import run

    def test_a_night_has_a_report():
        job = run(nightly("eu", days=3))
        assert job.result() == "3 days, 12 in all"

No broker, no result backend, no database and no tracker are asked. All the rest is what runs elsewhere: the canvas is
checked, planned and serialized as `submit` does it, each body is called by Celery's own tracer with the message that a
worker would get, and the functions by which the tracker decides say what opens, what failed and how the job ends. So
states, reasons, retries, values, item errors, progress and what tasks add are those of a real run.

What it is not: nothing runs side by side, and one task after the other runs in order of arrival; retries, countdowns
and `eta` are not waited for; time limits, `expires` and `untouched_timeout` do not end anything; nothing can be
ordered, prerequisites are not waited for, and no key is looked up. With a `barrier`, what a task adds runs before the
next level, but may run before others of its own.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from celery import Celery, current_app
from celery.canvas import Signature

from jobrunner.app import JobRunner
from jobrunner.failure_policy import DEFAULT
from jobrunner.submit import Submission, prepare
from jobrunner.testing.conclusion import conclude
from jobrunner.testing.course import Course
from jobrunner.testing.job import InlineJob

__all__ = ["InlineJob", "run"]


def run(
    canvas: Signature | str,
    parameters: Mapping[str, str] | None = None,
    *,
    app: Celery | JobRunner | None = None,
    barrier: bool = False,
    on_failure: str | None = None,
    threshold: float | None = None,
    propagate_failures: bool | None = None,
    on_partial: str | None = None,
) -> InlineJob:
    """Run a canvas, or the named job with these parameters as text, as `jobrunner submit` takes them.

    `app` is by default that of the canvas, and for a named job Celery's current one. The rest is as for `submit`.

    Raises:
        InvalidCanvasError, InvalidParametersError: `submit` would refuse it, too.
        NotFoundError: the app has no job of this name.
    """
    runner, name, policy = _runner(canvas, app), None, DEFAULT
    if isinstance(canvas, str):
        name, canvas = canvas, runner.canvas_of(canvas, parameters or {})
        policy = runner.named[name].policy
    policy = policy.changed(
        on_failure=on_failure, threshold=threshold, propagate_failures=propagate_failures, on_partial=on_partial
    )
    runner.prepare_tasks()
    return run_submission(runner, prepare(runner.app, canvas, name=name, barrier=barrier, policy=policy))


def run_submission(runner: JobRunner, submission: Submission) -> InlineJob:
    """Run what would be written into the database."""
    course = Course(runner.app, submission)
    course.run()
    propagate = course.job.propagate
    conclude(course, propagates=runner.settings.propagate_failures if propagate is None else propagate)
    return InlineJob(course, submission.job, datetime.now(UTC), database=runner.database)


def _runner(canvas: Signature | str, app: Celery | JobRunner | None) -> JobRunner:
    if isinstance(app, JobRunner):
        return app
    return JobRunner.of(app or getattr(canvas, "app", None) or current_app._get_current_object())  # noqa: SLF001

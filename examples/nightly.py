"""A nightly job: one task per day, joined into a report."""

from celery import Celery, Signature, chord, group

from jobrunner import JobRunner, current

app = Celery("nightly")
jobs = JobRunner(app)


@jobs.task  # a failure is soft: it is tried again, three times, with backoff
def measure(region: str, day: int) -> int:
    """Measure one day."""
    return len(region) * day


@jobs.task
def report(values: list[int]) -> str:
    """Join the days."""
    return f"{len(values)} days, {sum(values)} in all"


@jobs.job("nightly")
def nightly(region: str, days: int = 7) -> Signature:
    """Return the canvas of one night."""
    return chord([measure.s(region, day) for day in range(1, days + 1)], report.s())


@jobs.task(discovers=True)
def find_regions(days: int) -> None:
    """Find out what there is to do: these tasks join the job, and their values are the value of this one."""
    current.expand(group(measure.s(region, day) for region in ("asia", "eu") for day in range(1, days + 1)))


@jobs.job("everywhere")
def everywhere(days: int = 7) -> Signature:
    """Return the canvas of a job that finds its own work."""
    return find_regions.s(days) | report.s()

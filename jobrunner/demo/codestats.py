"""The demo's job on real input: one task per Python file, joined into a report.

Its workers open the files by path, so they must see the same disk as the program that submits.
"""

from pathlib import Path

from celery import Celery, Signature, chord

from jobrunner import JobRunner
from jobrunner.demo.analysis import FileRecord, Report, analyse, broken_samples, python_files, summarize

app = Celery("codestats", set_as_current=False)
jobs = JobRunner(app)


@jobs.task(name="codestats.file_stats")
def file_stats(path: str) -> FileRecord:
    """Say what one Python file holds."""
    return analyse(path)


@jobs.task(name="codestats.report")
def report(records: list[FileRecord]) -> Report:
    """Join the records of all files."""
    return summarize(records)


@jobs.job("codestats")
def codestats(folder: Path | None = None, samples: Path | None = None) -> Signature:
    """Report on the Python files below `folder` (default: the standard library), and faulty ones put in `samples`."""
    files = python_files(folder)
    if samples is not None:
        # First, so that the report's short list of errors shows them; once, where they lie below the folder.
        files = list(dict.fromkeys(broken_samples(samples) + files))
    return chord([file_stats.s(path) for path in files], report.s())

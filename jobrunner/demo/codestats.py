"""The demo's job on real input: a task finds the Python files, each is a task, and a last one joins them into a report.

Its workers list the folder and open the files by path, so they must see the same disk as the program that submits.
"""

from pathlib import Path

from celery import Celery, Signature, chain, group

from jobrunner import ItemError, JobRunner, Partial, Skip, current
from jobrunner.demo.analysis import (
    FileRecord,
    Report,
    analyse,
    broken_samples,
    python_files,
    source_folder,
    summarize,
)

app = Celery("codestats", set_as_current=False)
jobs = JobRunner(app)


@jobs.task(name="codestats.discover", discovers=True)
def discover(folder: str, samples: str | None) -> None:
    """Find the Python files below a folder, and put faulty ones in `samples`: each will be a task of the job."""
    files = python_files(Path(folder))
    if samples is not None:
        # First, so that the report's short list of errors shows them; once, where they lie below the folder.
        files = list(dict.fromkeys(broken_samples(Path(samples)) + files))
    if not files:
        why = f"no Python files below {folder}"
        raise Skip(why, value=[])
    current.expand(group(file_stats.s(path) for path in files))


@jobs.task(name="codestats.file_stats")
def file_stats(path: str) -> FileRecord | Partial[FileRecord]:
    """Say what one Python file holds; one that cannot be parsed is an item error, and what is known of it goes on."""
    record = analyse(path)
    fault = record["error"]
    if fault is None:
        return record
    details = {} if fault["line"] is None else {"line": fault["line"]}
    return Partial(record, errors=[ItemError(item=path, type=fault["type"], message=fault["message"], details=details)])


@jobs.task(name="codestats.report", skip_empty=True)
def report(records: list[FileRecord]) -> Report:
    """Join the records of all files."""
    return summarize(records)


@jobs.job("codestats", on_partial="tolerate")  # a job over foreign files meets faulty ones daily
def codestats(folder: Path | None = None, samples: Path | None = None) -> Signature:
    """Report on the Python files below `folder` (default: the standard library), and faulty ones put in `samples`."""
    return chain(
        discover.s(str(source_folder(folder)), None if samples is None else str(samples.resolve())), report.s()
    )

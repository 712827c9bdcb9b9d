"""How things look: tables and lines for people, JSON for programs."""

from jobrunner.cli.output.jobs import ended_line, job_json, job_lines, jobs_table, tasks_line
from jobrunner.cli.output.tables import UNKNOWN, console, new_table, origins_table, print_json
from jobrunner.cli.output.tasks import reported, task_json, tasks_table
from jobrunner.cli.output.times import stamp
from jobrunner.cli.output.tracker import doubt
from jobrunner.cli.output.workers import LOSSY, worker_blocks_table, worker_json, workers_table

__all__ = [
    "LOSSY",
    "UNKNOWN",
    "console",
    "doubt",
    "ended_line",
    "job_json",
    "job_lines",
    "jobs_table",
    "new_table",
    "origins_table",
    "print_json",
    "reported",
    "stamp",
    "task_json",
    "tasks_line",
    "tasks_table",
    "worker_blocks_table",
    "worker_json",
    "workers_table",
]

"""Durable jobs on Celery: submit a canvas, and a tracker follows its tasks in a database."""

from jobrunner import current
from jobrunner.app import JobRunner
from jobrunner.commands import CommandResult, CommandTask
from jobrunner.errors import JobrunnerError
from jobrunner.handle import Job, JobTask
from jobrunner.orders import Order
from jobrunner.progress import Progress
from jobrunner.statements import ItemError, Partial, Skip
from jobrunner.states import JobState, TaskState

__all__ = [
    "CommandResult",
    "CommandTask",
    "ItemError",
    "Job",
    "JobRunner",
    "JobState",
    "JobTask",
    "JobrunnerError",
    "Order",
    "Partial",
    "Progress",
    "Skip",
    "TaskState",
    "current",
]

"""Command tasks: what runs, where, with what environment, and what comes of it. `workers.command` runs it."""

from jobrunner.commands.record import CommandResult, OutputFile
from jobrunner.commands.specification import GRACE, TEMPORARY, Command
from jobrunner.commands.task import NAME, CommandTask, register

__all__ = ["GRACE", "NAME", "TEMPORARY", "Command", "CommandResult", "CommandTask", "OutputFile", "register"]

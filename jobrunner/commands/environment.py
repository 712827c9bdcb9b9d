"""The environment of a command: a stated list of the worker's own, what the task gives, and what we tell it. Pure."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

#: What is passed on of the worker's own environment: nothing else, so that no password of it gets into a command.
PASSED_ON: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ")

#: What a command is told: where it says how far it is, and who it is.
PROGRESS: Final = "JOBRUNNER_PROGRESS"
JOB: Final = "JOBRUNNER_JOB"
TASK: Final = "JOBRUNNER_TASK"
ATTEMPT: Final = "JOBRUNNER_ATTEMPT"


def environment_of(
    ours: Mapping[str, str], *, passed_on: Iterable[str], given: Mapping[str, str], told: Mapping[str, str]
) -> dict[str, str]:
    """Return a command's environment; what the task gives comes before the worker's own, and what we tell last."""
    patterns = tuple(passed_on)
    kept = {name: text for name, text in ours.items() if any(fnmatchcase(name, one) for one in patterns)}
    return {**kept, **given, **told}

"""What a command is: an executable with its arguments, and what its end means. Checked where it is made. Pure."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Final

from jobrunner.commands.outputs import check_pattern
from jobrunner.errors import InvalidParametersError

#: The exit code of a temporary failure, as Arvados has it.
TEMPORARY: Final = 111
#: Seconds from TERM to KILL.
GRACE: Final = 5.0

_LISTS: Final = (tuple, set, frozenset)
_SHELL: Final = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command. With `shell`, `argv` is the line that `/bin/sh` gets; else nobody interprets it.

    `success` and `temporary` are exit codes; that of a command which a signal has ended is the signal's number below
    zero. Any other is a failure that is not retried.
    """

    argv: str | Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    grace: float = GRACE
    outputs: Sequence[str] = ()
    success: Collection[int] = (0,)
    temporary: Collection[int] = (TEMPORARY,)
    shell: bool = False

    def __post_init__(self) -> None:
        self._check_argv()
        _check_seconds("timeout", self.timeout)
        _check_seconds("grace", self.grace)
        for name, text in self.environment.items():
            if not (_is_passable(name) and _is_passable(text) and name and "=" not in name):
                msg = f"{name!r} is no variable of an environment, or its value is no text."
                raise InvalidParametersError(msg, "Give env={'NAME': 'text'}.")
        if isinstance(self.outputs, str):
            msg = f"outputs={self.outputs!r} is no list."
            raise InvalidParametersError(msg, f"Write it as [{self.outputs!r}].")
        for pattern in self.outputs:
            check_pattern(pattern)
        for what, codes in (("success", self.success), ("temporary", self.temporary)):
            if not isinstance(codes, Collection) or not all(isinstance(one, int) for one in codes):
                msg = f"{what}={codes!r} is no list of exit codes."
                raise InvalidParametersError(msg, "Give whole numbers, such as (0,).")

    @property
    def words(self) -> list[str]:
        """The executable and its arguments, as the system gets them."""
        return [*_SHELL, self.argv] if isinstance(self.argv, str) else list(self.argv)

    @property
    def name(self) -> str:
        """What it is called in errors."""
        return self.argv if isinstance(self.argv, str) else self.argv[0]

    def as_arguments(self) -> dict[str, Any]:
        """Return what a message has of it: JSON values, and only what is not as it would be anyhow."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != _usual(one)}
        return {name: list(value) if isinstance(value, _LISTS) else value for name, value in given.items()}

    def _check_argv(self) -> None:
        if isinstance(self.argv, str) is not self.shell or not isinstance(self.argv, Sequence):
            msg = f"{self.argv!r} is {'no line' if self.shell else 'no list of words'}."
            remedy = "A list such as ['convert', 'a.png'] is run as it is; a line needs shell=True."
            raise InvalidParametersError(msg, remedy)
        words = self.words
        if not words or not words[0] or not all(map(_is_passable, words)):
            msg = f"{self.argv!r} is no command."
            raise InvalidParametersError(msg, "Give an executable and its arguments, all of them text.")


#: Names of what is optional; a `CommandTask` has an attribute for each, `jobs.command` a parameter. A test compares.
OPTIONS: Final = tuple(one.name for one in fields(Command) if one.name not in {"argv", "environment"})


def _usual(one: Field[Any]) -> Any:
    """Return what holds for a field that is not given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def _is_passable(text: object) -> bool:
    """Whether the system takes a text as an argument: without NULs, and such as it can be encoded."""
    try:
        return isinstance(text, str) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _check_seconds(what: str, seconds: object) -> None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is None and what == "timeout":
        return
    if not is_number or not 0 <= seconds < math.inf:  # type: ignore[operator]  # it is one
        msg = f"{what}={seconds!r} is no number of seconds."
        raise InvalidParametersError(msg, "Give one from 0 up.")

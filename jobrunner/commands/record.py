"""The typed record of a command that has ended well, as the value of its task."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file that a command has made: its path in the work directory, its bytes, and the SHA-256 of them in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What came of a command: `stdout` and `stderr` are the ends of what it has written, the files have more of it."""

    exit_code: int
    seconds: float
    stdout: str
    stderr: str
    stdout_bytes: int
    stderr_bytes: int
    outputs: tuple[OutputFile, ...]
    #: Where it ran, and its files are until they are pruned; on this worker's machine.
    work_directory: str
    worker: str | None

    def as_value(self) -> dict[str, Any]:
        """Return it as JSON has it: the value of a command task."""
        return {**asdict(self), "outputs": [asdict(one) for one in self.outputs]}

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that a value is."""
        return cls(**{**value, "outputs": tuple(OutputFile(**one) for one in value["outputs"])})

"""The files that a command has made: found by patterns, inside of its work directory only."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from jobrunner.commands.record import OutputFile
from jobrunner.errors import CommandFailedError, InvalidParametersError

#: Files of one command that its record lists.
MOST_OUTPUTS: Final = 1_000
#: The folder in a work directory that is ours.
OURS: Final = ".command"

_REMEDY: Final = "Give patterns such as '*.png' or 'tiles/**/*.tif', without '..'."


def check_pattern(pattern: object) -> None:
    """Refuse what is no pattern of paths inside of a work directory.

    Raises:
        InvalidParametersError: it is no text, empty, absolute, or leads upward; or `**` is a part of a name.
    """
    path = PurePosixPath(pattern) if isinstance(pattern, str) and "\0" not in pattern else None
    if path is None or not path.parts or path.is_absolute() or ".." in path.parts:
        msg = f"The output {pattern!r} is no path inside of the work directory."
        raise InvalidParametersError(msg, _REMEDY)
    if any("**" in part and part != "**" for part in path.parts):  # Python says so only when the command has run
        msg = f"The output {pattern!r} has '**' within a name."
        raise InvalidParametersError(msg, _REMEDY)


def collect(folder: Path, patterns: Sequence[str]) -> tuple[OutputFile, ...]:
    """Return the files that match, each once, in order of their paths.

    A pattern with wildcards may match nothing; a file that is named must be there.

    Raises:
        CommandFailedError: one is missing, there are too many, or one leads out of the folder by a symbolic link.
    """
    found: set[Path] = set()
    for pattern in patterns:
        files = f"{pattern}/*" if pattern.endswith("**") else pattern  # else, until Python 3.13, folders are meant
        matching = {one for one in folder.glob(files) if OURS not in one.relative_to(folder).parts}
        if not any(wildcard in pattern for wildcard in "*?[") and not any(one.is_file() for one in matching):
            msg = f"The command has ended well, and made no file {pattern!r}."
            raise CommandFailedError(msg, "A name without wildcards must be there: look at what it has written.")
        found |= matching
        if len(found) > MOST_OUTPUTS:
            msg = f"The command has made more than {MOST_OUTPUTS} outputs."
            raise CommandFailedError(msg, "Have it pack them into one file, or name fewer.")
    return tuple(_files(folder, sorted(found)))


def _files(folder: Path, paths: Sequence[Path]) -> Iterator[OutputFile]:
    root = folder.resolve()
    for path in paths:
        whole = Path(os.path.realpath(path))  # which minds no links that lead in a circle, as `resolve` may
        if not whole.is_relative_to(root):
            msg = f"The output {str(path.relative_to(folder))!r} leads out of the work directory, to {str(whole)!r}."
            raise CommandFailedError(msg, "Have the command copy that file instead of linking to it.")
        if whole.is_file():
            yield _file(str(path.relative_to(folder)), whole)


def _file(name: str, path: Path) -> OutputFile:
    with path.open("rb") as file:
        return OutputFile(path=name, size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())

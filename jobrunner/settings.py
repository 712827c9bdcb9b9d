"""What can be set from outside, and what holds when nothing is set.

A setting comes from `JOBRUNNER_…` in the environment, else from `jobrunner.toml`, else from `[tool.jobrunner]` of
`pyproject.toml`, else it is the default. Both files are looked for in the current folder only, where `.jobrunner` is
too: `app` names code to run, and a file that somebody left in a folder above, such as /tmp, must not choose it.

Read when asked for, never at import: `Settings.read()`. To add a setting, add a field to `Settings`: environment,
files, errors and `jobrunner config` follow, and a test asks for its line in the README.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from jobrunner.errors import ConfigurationError
from jobrunner.masking import mask_url

#: The origin of a value that nobody has set.
DEFAULT = "default"

_PROJECT = "pyproject.toml"
_FILE = "jobrunner.toml"
_VARIABLE = "JOBRUNNER_"

#: Digits of the greatest number that makes sense.
_DIGITS = 12

#: What a value is called in an error.
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting is read, and what is told about it; `otherwise` is what holds when it is not set.

    `parse` takes a raw value and the folder that paths in it are relative to. What it raises as `ValueError` is told
    after the setting's name, and must not repeat the value: it may be secret.
    """

    parse: Callable[[object, Path], object]
    about: str
    otherwise: str
    #: Another variable, of a system that this one takes the place of; its own comes before it.
    alias: str | None = None


def _text(value: object, _folder: Path) -> str:
    if not isinstance(value, str):
        msg = f"is {_kind(value)}, not text"
        raise ValueError(msg)  # noqa: TRY004  told like every other mistake
    if not value:
        msg = "is empty: leave it out to get the default"
        raise ValueError(msg)
    return value


def _path(value: object, folder: Path) -> Path:
    try:
        return folder / Path(_text(value, folder)).expanduser()
    except RuntimeError:
        msg = "begins with a user whose folder is not known"
        raise ValueError(msg) from None


def _count(value: object, _folder: Path) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS:  # all that an environment can hold
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"is {_kind(value)}, not a whole number"
        raise ValueError(msg)  # noqa: TRY004  as above
    if value < 1:
        msg = "is less than 1"
        raise ValueError(msg)
    return value


def _truth(value: object, _folder: Path) -> bool:
    if isinstance(value, str):  # in any case, as it is written in environments
        value = {"true": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        msg = "is neither true nor false"
        raise ValueError(msg)  # noqa: TRY004  as above
    return value


def _option(
    parse: Callable[[object, Path], object], about: str, otherwise: str, alias: str | None = None
) -> dict[str, Option]:
    return {"option": Option(parse, about, otherwise, alias)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one process. URLs are Celery's and SQLAlchemy's own; `None` means nothing was set."""

    home: Path = field(
        default=Path(".jobrunner"), metadata=_option(_path, "folder of everything on this machine", "`.jobrunner`")
    )
    database: str | None = field(
        default=None, metadata=_option(_text, "SQLAlchemy URL of the database", "SQLite in `home`")
    )
    broker: str | None = field(
        default=None, metadata=_option(_text, "broker of an app that has none, and of `tracker`", "the embedded broker")
    )
    result_backend: str | None = field(
        default=None, metadata=_option(_text, "result backend of an app that has none, and of `tracker`", "the broker")
    )
    app: str | None = field(default=None, metadata=_option(_text, "module of the Celery app, as `-A`", "the demo"))
    event_log_limit: int = field(
        default=20_000,
        metadata=_option(_count, "entries that workers let the event log have while no tracker reads it", "20000"),
    )
    keep_logs: bool = field(
        default=True, metadata=_option(_truth, "what tasks of jobs log and print is kept; for workers", "true")
    )
    log_limit: int = field(
        default=1_000_000, metadata=_option(_count, "characters that are kept of what an attempt logs", "1000000")
    )
    log_rate: int = field(
        default=1_000, metadata=_option(_count, "lines that are kept of what an attempt logs in a second", "1000")
    )
    propagate_failures: bool = field(
        default=False,
        metadata=_option(
            _truth,
            "what can never run because something before it has failed is marked failed too; for `tracker`",
            "false",
            alias="CAF_JOB_TRACKING_PROPAGATE_FAILURES",
        ),
    )

    work_root: Path | None = field(
        default=None,
        metadata=_option(_path, "folder on each worker for the work directories of commands", "`work` in `home`"),
    )
    work_days: int = field(default=7, metadata=_option(_count, "days after which a work directory is deleted", "7"))
    work_megabytes: int = field(
        default=10_000,
        metadata=_option(
            _count, "what all work directories may hold on a worker's disk; beyond, the oldest are deleted", "10000"
        ),
    )
    command_output_megabytes: int = field(
        default=10,
        metadata=_option(_count, "what is kept of each output of a command: its beginning and its end", "10"),
    )

    #: By the name of what was set, where: the variable, or the path of the file.
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ, folder: Path = Path()) -> Self:
        """Read the environment, where an empty variable counts as unset, and the files of `folder`.

        Raises:
            ConfigurationError: names all that is wrong, wherever it stands.
        """
        folder = folder.absolute()
        values: dict[str, Any] = {"home": folder / cls().home}
        origins: dict[str, str] = {}
        problems: list[str] = []
        for origin, name, raw in _found(environment, folder, problems):  # what comes later counts
            if name not in OPTIONS:
                problems.append(f"{origin}: {name!r} is no setting{_nearest(name)}")
                continue
            try:
                values[name], origins[name] = OPTIONS[name].parse(raw, folder), origin
            except ValueError as error:
                problems.append(f"{origin}: {name} {error}.")
        if problems:
            msg = "\n  ".join(["The settings cannot be used.", *problems])
            raise ConfigurationError(msg, f"Correct this; the settings are {', '.join(OPTIONS)}.")
        return cls(**values, origins=origins)

    @property
    def database_url(self) -> str:
        """The database: as set, else a SQLite file in `home`."""
        return self.database or f"sqlite:///{self.home / 'jobrunner.db'}"

    @property
    def work_folder(self) -> Path:
        """Where commands have their work directories: as set, else a folder in `home`."""
        return self.work_root or self.home / "work"

    def origin(self, name: str) -> str:
        """Return where a value comes from: a variable, the path of a file, or `DEFAULT`."""
        return self.origins.get(name, DEFAULT)

    def shown(self, name: str) -> str | None:
        """Return a value for people: text without passwords."""
        value = getattr(self, name)
        if isinstance(value, bool):
            return str(value).lower()  # as it is written
        return None if value is None else mask_url(str(value))

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={self.shown(name)!r}' for name in OPTIONS)})"


#: The table of settings, by name.
OPTIONS: Mapping[str, Option] = {
    one.name: one.metadata["option"] for one in fields(Settings) if "option" in one.metadata
}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return _VARIABLE + name.upper()


def _found(environment: Mapping[str, str], folder: Path, problems: list[str]) -> Iterator[tuple[str, str, object]]:
    """Yield all that is set anywhere as (origin, name, raw value), the weakest first."""
    for path, tables in ((folder / _PROJECT, ("tool", "jobrunner")), (folder / _FILE, ())):
        try:
            yield from ((str(path), name, value) for name, value in _table(path, tables).items())
        except ValueError as error:
            problems.append(f"{path}: {error}.")
    variables = [(option.alias, name) for name, option in OPTIONS.items() if option.alias]
    variables += [(variable(name), name) for name in OPTIONS]
    yield from ((one, name, environment[one]) for one, name in variables if environment.get(one))


def _table(path: Path, tables: tuple[str, ...]) -> dict[str, Any]:
    """Return a table of a TOML file, empty if there is no such file or no such table."""
    found: Any = _parsed(path)
    for name in tables:
        found = found.get(name, {})
        if not isinstance(found, dict):
            msg = f"{name} is {_kind(found)}, not a table"
            raise ValueError(msg)  # noqa: TRY004  as above
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror})"
        raise ValueError(msg) from None
    except UnicodeDecodeError:
        msg = "the file is no text in UTF-8"
        raise ValueError(msg) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"the file is no valid TOML ({error})"
        raise ValueError(msg) from None


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, OPTIONS, 1)
    return f"; did you mean {near[0]}?" if near else "."

"""What all output is made of: the console, tables, colours of states, and JSON for programs."""

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobrunner import strict_json

_COLORS = {"completed": "green", "failed": "red", "canceled": "yellow", "partial": "yellow", "active": "cyan",
           "soft-failed": "magenta",
           "online": "green", "lost": "red"}  # fmt: skip
#: Columns that go on in the next line where a terminal is narrow.
_FOLDED = frozenset({"NOTE", "VALUE", "ORIGIN", "WHAT", "WAITS", "ERROR", "WORKERS"})
#: In the place of a name that was not told yet.
UNKNOWN = "?"
#: Columns of a table that goes to a file or a pipe, which has no width.
_WIDE = 1_000


def console(*, stderr: bool = False) -> Console:
    """Return a console that neither guesses at words nor wraps what goes into a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, markup=False, width=None if stream.isatty() else _WIDE)


def new_table(*columns: str) -> Table:
    """Return an empty table with these heads."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column not in _FOLDED, overflow="fold")
    return table


def state_text(state: str, line: str | None = None, *, mark: str = "") -> Text:
    """Return a state, or a line about it, in the colour of the state; a mark follows dimly."""
    text = Text(line or state, style=_COLORS.get(state, ""))
    return text.append(f", {mark}", style="dim") if mark else text


def origins_table(head: str, rows: Mapping[str, tuple[str | None, str]]) -> Table:
    """Return values with their origins as a table, by name."""
    table = new_table(head, "VALUE", "ORIGIN")
    for name, (value, origin) in rows.items():
        table.add_row(name, value or "", origin)
    return table


def print_json(value: Any) -> None:
    """Print a value as JSON, times as ISO 8601."""
    click.echo(
        strict_json.dumps(
            value, indent=2, default=lambda one: one.isoformat() if isinstance(one, datetime) else str(one)
        )
    )

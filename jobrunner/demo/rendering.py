"""The report of the demo, laid out for a terminal."""

from pathlib import PurePath

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobrunner.demo.analysis import Report


def render(report: Report) -> RenderableType:
    """Return the report as titled tables; those that would be empty are left out."""
    sections = {
        "Totals": _totals(report),
        "Longest functions": _longest(report),
        "Most imported modules": _imported(report),
        "Files that could not be read or parsed": _failed(report),
    }
    # Titles stand above the tables, not in them: rich wraps a table's own title to the width of its columns.
    return Group(
        *(
            Group(Text(title, style="bold"), Padding(table, (0, 0, 1, 2), expand=False))
            for title, table in sections.items()
            if table.row_count
        )
    )


def _totals(report: Report) -> Table:
    table = _table()
    for heading in ("files", "failed", "lines", "functions"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{report['files']:,}",
        Text(f"{report['failed']:,}", style="yellow" if report["failed"] else ""),
        f"{report['lines']:,}",
        f"{report['functions']:,}",
    )
    return table


def _longest(report: Report) -> Table:
    table = _table()
    table.add_column("lines", justify="right")
    table.add_column("function", style="cyan", overflow="fold")
    table.add_column("file", overflow="fold")
    for function in report["longest"]:
        table.add_row(f"{function['lines']:,}", _plain(function["name"]), _plain(_shortened(function["path"])))
    return table


def _imported(report: Report) -> Table:
    table = _table()
    table.add_column("files", justify="right")
    table.add_column("module", style="cyan", overflow="fold")
    for imported in report["imports"]:
        table.add_row(f"{imported['files']:,}", _plain(imported["module"]))
    return table


def _failed(report: Report) -> Table:
    # The error goes below its file: side by side, the two would break each other's lines.
    table = Table.grid()
    table.add_column(overflow="fold")
    for failure in report["errors"]:
        table.add_row(_plain(failure["path"]))
        table.add_row(Padding(_plain(failure["error"], style="yellow"), (0, 0, 0, 2), expand=False))
    if report["errors_omitted"]:
        table.add_row(Text(f"and {report['errors_omitted']:,} more", style="dim"))
    return table


def _table() -> Table:
    return Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)


def _shortened(path: str) -> str:
    """Return the end of a path: the file and the two folders around it."""
    parts = PurePath(path).parts
    return str(PurePath("…", *parts[-3:])) if parts[:-3] else path


def _plain(text: str, style: str = "") -> Text:
    """Return foreign text as it is: brackets are no markup, and no escape sequence reaches the terminal."""
    printable = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return Text(printable, style=style)

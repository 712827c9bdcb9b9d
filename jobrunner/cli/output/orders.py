"""How orders look: what came of each, and what was decided about a job."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table
from rich.text import Text

from jobrunner.cli.output.tables import new_table
from jobrunner.cli.output.times import stamp
from jobrunner.errors import NotFoundError, RefusedError, WaitTimeoutError
from jobrunner.order_kinds import OrderKind
from jobrunner.records import HistoryLine

#: Instead of an outcome: it is not known yet.
ORDERED = "ordered"

_COLORS = {"done": "green", "refused": "red", "not-found": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of an order about one job or task; `order` is its id, if it was given at all."""

    kind: OrderKind
    job: str | None
    task: str | None
    outcome: str
    text: str
    order: str | None

    def as_json(self) -> dict[str, str | None]:
        """Return it as JSON-friendly values."""
        return asdict(self)


def results_table(results: Sequence[Result]) -> Table:
    """Return what came of orders as a table, one line each."""
    of_tasks = any(one.task for one in results)
    table = new_table("JOB", *(["TASK"] if of_tasks else []), "OUTCOME", "WHAT")
    for one in results:
        outcome = Text(one.outcome, style=_COLORS.get(one.outcome, ""))
        table.add_row(one.job or "", *([one.task or ""] if of_tasks else []), outcome, one.text)
    return table


def exit_code(results: Iterable[Result], *, waited: bool) -> int:
    """Return the exit code: of what is unanswered although it was waited for, else of what was refused or not found."""
    outcomes = {one.outcome for one in results}
    if waited and ORDERED in outcomes:
        return WaitTimeoutError.exit_code
    if "refused" in outcomes:
        return RefusedError.exit_code
    return NotFoundError.exit_code if "not-found" in outcomes else 0


def history_table(lines: Iterable[HistoryLine]) -> Table:
    """Return what was decided as a table, newest last: who gave the order, or none if the tracker decided."""
    table = new_table("WHEN", "OBJECT", "FROM", "TO", "TRIGGER", "WHO", "WHAT")
    for one in lines:
        table.add_row(
            stamp(one.at),
            f"task {one.task_id}" if one.task_id else "job",
            one.old or "",
            one.new or "",
            one.trigger or "",
            one.who or "",
            " ".join(filter(None, (one.line, one.why and f"({one.why})"))),
        )
    return table

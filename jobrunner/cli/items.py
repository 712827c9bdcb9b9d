"""How item errors look: in groups that say the same, and item by item, a page at a time."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli.output import console, new_table
from jobrunner.error_groups import ItemErrorGroup, group_item_errors
from jobrunner.states import TaskState
from jobrunner.store.items import ItemErrorView, all_item_errors, count_item_errors, list_item_errors
from jobrunner.store.reading import JobView
from jobrunner.text import SENTENCE, one_line

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which item errors are shown: so many from this one on, counted from 0."""

    limit: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemErrors:
    """The item errors of a job: all of them in groups, of which the largest are here, and a page of themselves."""

    groups: list[ItemErrorGroup]
    more_groups: int
    shown: list[ItemErrorView]
    page: Page
    total: int

    @classmethod
    def of(cls, connection: "Connection", view: JobView, page: Page) -> "ItemErrors":
        """Ask for them, if any task of the job ended partial."""
        if not view.counts.get(TaskState.PARTIAL):
            return cls(groups=[], more_groups=0, shown=[], page=page, total=0)
        groups = group_item_errors(all_item_errors(connection, view.id))
        return cls(
            groups=groups[: page.limit],
            more_groups=max(len(groups) - page.limit, 0),
            shown=list_item_errors(connection, view.id, limit=page.limit, offset=page.offset),
            page=page,
            total=count_item_errors(connection, view.id),
        )

    @property
    def as_json(self) -> dict[str, Any]:
        """JSON-friendly values."""
        return {
            "total": self.total,
            "groups": [
                {"error": one.error, "items": one.items, "tasks": len(one.tasks), "names": sorted(one.names)}
                for one in self.groups
            ],
            "more_groups": self.more_groups,
            "offset": self.page.offset,
            "errors": [dataclasses.asdict(one) for one in self.shown],
        }

    def show(self) -> None:
        """Print them as two tables, and how many there are beyond."""
        groups = new_table("ERROR", "ITEMS", "TASKS")
        for group in self.groups:
            groups.add_row(one_line(group.error, SENTENCE), f"{group.items:,}", f"{len(group.tasks):,}")
        console().print(groups)
        if self.more_groups:
            click.echo(f"… and {self.more_groups:,} more that differ", err=True)
        if not self.shown:
            click.echo(
                f"There are {self.total:,} item errors, none of them from --offset {self.page.offset} on.", err=True
            )
            return
        items = new_table("ITEM", "ERROR", "TASK")
        for one in self.shown:
            items.add_row(one_line(one.label, SENTENCE), one_line(one.error, SENTENCE), one.task_id)
        click.echo()
        console().print(items)
        end = self.page.offset + len(self.shown)
        if end < self.total:
            click.echo(f"… and {self.total - end:,} more: --offset {end}", err=True)

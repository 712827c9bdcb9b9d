"""Orders as rows hold them: what was asked for, what became of it, and what a requeue has yet to do."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jobrunner.order_kinds import OrderKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody asks for; `arguments` by kind, as JSON holds them."""

    id: str
    kind: OrderKind
    job_id: str
    task_id: str | None
    arguments: Mapping[str, Any]
    asked_by: str
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of an order: `done`, `refused` or `not-found`, and in words what changed, or why not."""

    outcome: Literal["done", "refused", "not-found"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Which tasks of a job wait again: all of these kinds, and `tasks` by their ids.

    `upstream` are those that were canceled because of what was before them, and `behind` all after these (block,
    position) of chains; if it is all `after` a task, the tracker fills that in. `reset` is how many wait already.
    Of `tasks`, those with `items` take only the ones that failed in a delivery, (task, delivery); `besides` is what the
    answer says of others.
    """

    all: bool = False
    incomplete: bool = False
    upstream: bool = False
    tasks: tuple[str, ...] = ()
    after: str | None = None
    behind: tuple[tuple[str, int], ...] = ()
    items: tuple[tuple[str, int], ...] = ()
    besides: str = ""
    reset: int = 0

    @classmethod
    def loads(cls, text: str | None) -> "Requeue":
        """Read what `dumps` has written; None is nothing."""
        if text is None:
            return cls()
        values = json.loads(text)
        values["tasks"] = tuple(values["tasks"])
        for name in ("behind", "items"):
            values[name] = tuple(tuple(one) for one in values.get(name, ()))
        return cls(**values)

    def with_behind(self, places: Iterable[tuple[str, int]]) -> "Requeue":
        """Return it with all that comes after these places as well."""
        return replace(self, behind=tuple(sorted({*self.behind, *places})))

    def with_all_of(self, other: "Requeue") -> "Requeue":
        """Return it with all that another requeue of the same job is about; both take all items."""
        return replace(
            self,
            items=(),
            besides="",
            all=self.all or other.all,
            incomplete=self.incomplete or other.incomplete,
            tasks=tuple(sorted({*self.tasks, *other.tasks})),
        )

    def counting(self, number: int) -> "Requeue":
        """Return it with so many more tasks that wait."""
        return replace(self, reset=self.reset + number)

    def dumps(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

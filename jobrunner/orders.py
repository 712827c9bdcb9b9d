"""Orders: what a person or program asks for, as rows that the tracker applies, and the handle that tells its answer.

An order stands from the moment its row is committed, whoever is away: tracker, broker and workers take it up when they
are back. Nothing here decides whether it is taken.
"""

import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobrunner import ids, order_records
from jobrunner.errors import NotFoundError, RefusedError, WaitTimeoutError
from jobrunner.looking import looks
from jobrunner.order_kinds import OrderKind
from jobrunner.order_records import Answer
from jobrunner.store.database import Database
from jobrunner.store.orders import OrderView, insert_orders, read_orders
from jobrunner.text import NAME, SENTENCE, bounded, check_texts


class Order:
    """An order by its id. Every property is read afresh."""

    def __init__(self, order: order_records.Order, *, database: Database) -> None:
        self.id = order.id
        self.kind = order.kind
        self.job_id = order.job_id
        self.task_id = order.task_id
        self._database = database

    def __repr__(self) -> str:
        return f"Order({self.id!r}, {self})"

    def __str__(self) -> str:
        return f"{self.kind} {'job' if self.task_id is None else 'task'} {self.task_id or self.job_id}"

    @property
    def answer(self) -> Answer | None:
        """What became of it, or None as long as that is not known: it is done when what was ordered is so.

        A job is then paused, not just pausing: nothing of it runs, and nothing starts.
        """
        return await_answers(self._database, [self.id], 0)[self.id].answer

    def wait(self, timeout: float | None = None) -> Answer:
        """Wait until it is answered, and return the answer, whatever it is.

        Raises:
            WaitTimeoutError: it had no answer after `timeout` seconds. The order stands, and takes effect later.
        """
        view = await_answers(self._database, [self.id], timeout)[self.id]
        if view.answer is None:
            missing = "no tracker has taken it" if view.applied_at is None else "it is taken, and not done yet"
            msg = f"The order to {self} has no answer after {timeout:g} s: {missing}."
            raise WaitTimeoutError(msg, f"It stands, and takes effect later; see `jobrunner show {self.job_id}`.")
        return view.answer

    def result(self, timeout: float | None = None) -> str:
        """Wait until it is done, and return in words what changed.

        Raises:
            RefusedError: the state of job or task does not allow it.
            NotFoundError: job or task are gone.
            WaitTimeoutError: it had no answer after `timeout` seconds. The order stands, and takes effect later.
        """
        answer = self.wait(timeout)
        if answer.outcome == "refused":
            raise RefusedError(answer.text)
        if answer.outcome == "not-found":
            raise NotFoundError(answer.text)
        return answer.text


def give(
    database: Database,
    kind: OrderKind,
    targets: Sequence[tuple[str, str | None]],
    arguments: Mapping[str, Any] | None = None,
    *,
    by: str | None = None,
    why: str | None = None,
    wake: Callable[[], object] | None = None,
) -> list[Order]:
    """Order the same of jobs, or of tasks, each (job, task or None), in one transaction; `wake` is called after it.

    `arguments` come from `jobrunner.order_arguments`.

    Raises:
        InvalidParametersError: who or why does not fit; nothing is ordered.
        UnreachableError: the database is away; nothing is ordered.
    """
    check_texts(limit=NAME, by=by)
    check_texts(limit=SENTENCE, reason=why)
    asked_by = by or whoami()
    rows = [
        order_records.Order(
            id=ids.uuid7(),
            kind=kind,
            job_id=job_id,
            task_id=task_id,
            arguments=arguments or {},
            asked_by=asked_by,
            why=why,
        )
        for job_id, task_id in targets
    ]
    if not rows:
        return []
    with database.write() as connection:
        insert_orders(connection, rows)
    if wake is not None:
        wake()
    return [Order(row, database=database) for row in rows]


def await_answers(database: Database, order_ids: Sequence[str], timeout: float | None) -> dict[str, OrderView]:
    """Wait until all of these orders are answered, but no longer than `timeout` seconds; return how far each is."""
    known: dict[str, OrderView] = {}
    for _ in looks(timeout):
        left = [id_ for id_ in order_ids if id_ not in known or known[id_].answer is None]
        with database.read() as connection:
            found = read_orders(connection, left)
        if missing := [id_ for id_ in left if id_ not in found]:
            msg = f"There is no order {missing[0]} in {database.where}."
            raise NotFoundError(msg, "It may have been pruned with its job.")
        known |= found
        if all(one.answer is not None for one in known.values()):
            break
    return known


def whoami() -> str:
    """Return who gives an order where nobody says so: the user and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = str(os.getuid())
    return bounded(f"{user}@{socket.gethostname()}", NAME)

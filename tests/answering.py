"""Answers to orders where no tracker runs: what a tracker would write, written by hand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

from sqlalchemy import select, update

from jobrunner.order_records import Answer
from jobrunner.store.database import Database
from jobrunner.store.schema import orders
from tests.builders import MIDNIGHT


def answer(outcome: Literal["done", "refused", "not-found"] = "done", text: str = "changed") -> Answer:
    return Answer(outcome=outcome, text=text)


def take(database: Database) -> None:
    """Take all orders up, and answer none."""
    with database.write() as connection:
        connection.execute(update(orders).values(applied_at=MIDNIGHT))


def reply(database: Database, made: Callable[[Any], Answer]) -> int:
    """Answer all orders that have no answer, by their rows; return how many there were."""
    with database.write() as connection:
        rows = connection.execute(select(orders).where(orders.c.answered_at.is_(None))).all()
        for row in rows:
            known = {"applied_at": MIDNIGHT, "answered_at": MIDNIGHT, "answer": json.dumps(asdict(made(row)))}
            connection.execute(update(orders).where(orders.c.id == row.id).values(known))
        return len(rows)


@contextmanager
def answering(url: str, made: Callable[[Any], Answer] = lambda _: answer()) -> Iterator[None]:
    """Answer orders as they come, until the block ends."""
    database, over = Database(url), threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            reply(database, made)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)
        database.close()

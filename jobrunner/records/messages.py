"""Task messages as they lie in the database, until they go to the broker."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A task message as stored at submission, with what its next delivery needs; `delivery` is that one's number.

    It is not sent if its job is `held`, or the task's end is `ordered`, nor with `skip_empty` if what it takes is
    empty. With `only_items` it takes the items that failed in that delivery, in the place of what it takes else.
    """

    task_id: str
    job_id: str
    queue: str
    run: int
    delivery: int
    first_retries: int
    takes_task: str | None
    takes_group: str | None
    skip_empty: bool = False
    held: bool = False
    ordered: str | None = None
    handed_back: int = 0
    only_items: int | None = None
    body: bytes
    content_type: str
    content_encoding: str
    headers: str
    properties: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMessage:
    """A message that the tracker has not made and a gate has handed back whole, to be forwarded as it is (C3).

    `headers` and `properties` are JSON.
    """

    id: str
    job_id: str
    task_id: str
    celery_id: str
    retries: int
    queue: str
    body: bytes
    content_type: str
    content_encoding: str
    headers: str
    properties: str

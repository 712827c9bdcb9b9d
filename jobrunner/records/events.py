"""Events that cannot be folded, and how many of them never came."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedEvent:
    """An event that cannot be folded, or an entry of the event log that cannot be read, and why."""

    source: str | None
    worker: str | None
    type: str | None
    uuid: str | None
    reason: str
    detail: str | None
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """How far the batches of one process of a worker were read: the last number, and what it had dropped by then."""

    id: str
    worker: str
    number: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is known to be lost of a series: events that its worker dropped, numbers of batches that never arrived."""

    worker: str
    series: str
    events: int
    missed: range

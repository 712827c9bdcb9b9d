"""The snapshot: which jobs are held and which messages are void, as the tracker stores it for the workers' gates.

One JSON text under one key of the result backend, and its version under another, which is all that a worker asks for as
long as nothing changes. It outlives workers, tracker and broker, so an order does too. Pure: who stores and who reads
it live elsewhere.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from jobrunner.errors import JobrunnerError
from jobrunner.wire import VERSION

#: Keys of the result backend: the text, and the number of its version.
SNAPSHOT_KEY = "jobrunner-snapshot"
SNAPSHOT_VERSION_KEY = "jobrunner-snapshot-version"


class Kind(StrEnum):
    """What an entry says of a job; `subject` is empty but for `VOID`."""

    #: Nothing of it starts; what is refused is sent again later.
    PAUSED = "paused"
    #: Nothing of it starts any more; what runs is ended after so many seconds of grace, or finishes.
    CANCELED = "canceled"
    #: Messages of earlier runs are void: requeued since.
    RUN = "run"
    #: One delivery, by its Celery id, or one batch that the tracker may have sent in part.
    VOID = "void"


class Refusal(StrEnum):
    """Why a gate does not let a task start."""

    PAUSED = "paused"
    CANCELED = "canceled"
    VOID = "void"
    #: The broker gives the message once more; only the tracker does that.
    REDELIVERED = "redelivered"
    #: No tracker has stored a snapshot, or it could not be read lately.
    UNINFORMED = "uninformed"


FINAL = frozenset({Refusal.CANCELED, Refusal.VOID})
"""Refusals for good: nobody will want the message again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What the snapshot says of one job; `grace` in seconds, None to let finish what runs."""

    held: Kind | None = None
    grace: float | None = None
    run: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message as a gate judges it: which job, delivery, run and batch it is of, as far as its headers say."""

    root_id: str | None
    celery_id: str
    run: int | None = None
    batch: str | None = None
    redelivered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Holds by job id, and what is void with the seconds of grace for what runs (None: it finishes)."""

    version: int
    jobs: Mapping[str, Hold] = field(default_factory=dict)
    void: Mapping[str, float | None] = field(default_factory=dict)

    def dumps(self) -> str:
        """Return the text to store."""
        return json.dumps({"v": VERSION, **asdict(self)})

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """Read what was stored.

        Raises:
            JobrunnerError: a newer jobrunner has stored it.
        """
        stored: dict[str, Any] = json.loads(text)
        if stored["v"] > VERSION:
            msg = f"The snapshot for workers has version {stored['v']}, newer than {VERSION}."
            raise JobrunnerError(msg, "Upgrade jobrunner on the workers first.")
        jobs = {
            job_id: Hold(held=one["held"] and Kind(one["held"]), grace=one["grace"], run=one["run"])
            for job_id, one in stored["jobs"].items()
        }
        return cls(version=stored["version"], jobs=jobs, void=stored["void"])

    def refusal(self, sent: Sent) -> Refusal | None:
        """Return why a message must not start now; None if it may."""
        hold = self.jobs.get(sent.root_id or "")
        if self._is_void(sent, hold):
            return Refusal.VOID
        if hold is not None and hold.held is not None:
            return Refusal(hold.held)
        return Refusal.REDELIVERED if sent.redelivered else None

    def _is_void(self, sent: Sent, hold: Hold | None) -> bool:
        if sent.celery_id in self.void or sent.batch in self.void:
            return True
        return hold is not None and sent.run is not None and sent.run < hold.run

    def grace(self, sent: Sent) -> float | None:
        """Return after how many seconds what runs is to be killed; None if it may finish. It ends with TERM before."""
        if sent.celery_id in self.void:
            return self.void[sent.celery_id]
        hold = self.jobs.get(sent.root_id or "")
        return hold.grace if hold is not None and hold.held is Kind.CANCELED else None

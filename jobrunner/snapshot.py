"""The snapshot: what is held, void or blocked and which workers live, as the tracker stores it for the workers' gates.

One JSON text under one key of the result backend, and its version under another, which is all that a worker asks for as
long as nothing changes. It outlives workers, tracker and broker, so an order does too. Pure: who stores and who reads
it live elsewhere.
"""

import json
from collections.abc import Collection, Mapping, Sequence
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
    #: A worker that has failed the task, while others live that have not.
    AVOIDED = "avoided"
    #: A worker that has failed one task of this name and job after the other.
    BLOCKED = "blocked"


FINAL = frozenset({Refusal.CANCELED, Refusal.VOID})
"""Refusals for good: nobody will want the message again."""


PERSONAL = frozenset({Refusal.AVOIDED, Refusal.BLOCKED})
"""Refusals of one worker: another one would run it."""


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
    name: str = ""
    run: int | None = None
    batch: str | None = None
    redelivered: bool = False
    #: Workers that have failed it.
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Holds by job id, and what is void with the seconds of grace for what runs (None: it finishes).

    `workers` are those that live, with the queues that each takes tasks from, as far as it has said (None: it has not).
    `blocked` says which of them get no more tasks of a job: by job, and by the tasks' name.
    """

    version: int
    jobs: Mapping[str, Hold] = field(default_factory=dict)
    void: Mapping[str, float | None] = field(default_factory=dict)
    workers: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    blocked: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

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
        later = {name: stored.get(name, {}) for name in ("workers", "blocked")}  # than the first version
        return cls(version=stored["version"], jobs=jobs, void=stored["void"], **later)

    def refusal(self, sent: Sent, worker: str = "") -> Refusal | None:
        """Return why a message must not start now, on this worker; None if it may."""
        hold = self.jobs.get(sent.root_id or "")
        if self._is_void(sent, hold):
            return Refusal.VOID
        if hold is not None and hold.held is not None:
            return Refusal(hold.held)
        if sent.redelivered:
            return Refusal.REDELIVERED
        blocked = self.blocked.get(sent.root_id or "", {}).get(sent.name, ())
        if worker in blocked:
            return Refusal.BLOCKED
        return (
            Refusal.AVOIDED if worker in sent.avoid and self._lives_another(worker, {*sent.avoid, *blocked}) else None
        )

    def _lives_another(self, worker: str, avoided: Collection[str]) -> bool:
        """Whether another worker may get what this one does, and has not failed it or is blocked for it.

        A worker on its own runs it again at once: nobody else would come for it.
        """
        ours = self.workers.get(worker)
        others = (queues for name, queues in self.workers.items() if name != worker and name not in avoided)
        return any(ours is None or queues is None or not set(ours).isdisjoint(queues) for queues in others)

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

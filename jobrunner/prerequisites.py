"""What a job waits for before it is executed (C4): other jobs, named by those who submit it.

A job may be named that does not exist yet. How names are found in the database is `jobrunner.store.prerequisites`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobrunner.errors import InvalidParametersError, RefusedError
from jobrunner.handle import Job
from jobrunner.states import JobState
from jobrunner.store import prerequisites as store
from jobrunner.store.prerequisites import Wanted
from jobrunner.text import check_texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

_REMEDY = "Give a list of ids, keys or handles of jobs."
#: What has become of a job that does not complete by itself any more.
OVER: Mapping[JobState, str] = {JobState.FAILED: "has failed", JobState.CANCELED: "was canceled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """The ids and keys of jobs that are waited for; with `failed`, also of those that have failed or were canceled."""

    wanted: tuple[str, ...] = ()
    failed: bool = False


def after(jobs: Iterable[Job | str], *, key: str | None, failed: bool = False) -> After:
    """Return what a job with this key is to wait for.

    Raises:
        InvalidParametersError: these are no ids, keys or handles of other jobs.
    """
    if isinstance(jobs, str | bytes | Job) or not isinstance(jobs, Iterable):
        msg = f"What the job is to wait for, {jobs!r}, is no list."
        raise InvalidParametersError(msg, _REMEDY)
    wanted = tuple(dict.fromkeys(_name(one) for one in jobs))
    if key is not None and key in wanted:
        msg = f"A job with the key {key!r} would wait for itself."
        raise InvalidParametersError(msg, "Name other jobs.")
    return After(wanted=wanted, failed=failed)


def _name(job: object) -> str:
    name = job.id if isinstance(job, Job) else job
    if not isinstance(name, str):
        msg = f"{name!r} is no job to wait for."
        raise InvalidParametersError(msg, _REMEDY)
    texts: dict[str, Any] = {"id or key of a job to wait for": name}
    check_texts(**texts)
    return name


def prerequisite_rows(connection: "Connection", job: Mapping[str, Any], after: After) -> list[dict[str, Any]]:
    """Return the rows of table `prerequisite` of a new job.

    Raises:
        RefusedError: it would wait for itself, or for a job that has failed or was canceled.
    """
    if not after.wanted:
        return []
    store.lock(connection)
    named = store.find_named(connection, after.wanted)
    _refuse_ended(named.values(), after)
    _refuse_cycle(connection, {job["id"], job["key"]} - {None}, named.values())
    return list(_rows(job, after, named))


def _refuse_ended(named: Collection[Wanted], after: After) -> None:
    for one in named:
        if one.state in OVER and not after.failed:
            msg = f"It would wait for job {one.name} [{one.id}], which {OVER[one.state]}."
            raise RefusedError(
                msg, "Requeue that one first, or wait for it all the same: `wait_for_failed=True`, `--wait-for-failed`."
            )


def _refuse_cycle(connection: "Connection", names: Collection[str], named: Collection[Wanted]) -> None:
    before = store.waits_for_itself(connection, names, {one.id for one in named})
    if before is not None:
        msg = f"It would wait for itself: for job {before.name} [{before.id}], which waits for it."
        raise RefusedError(msg, "Leave out one of the two.")


def _rows(job: Mapping[str, Any], after: After, named: Mapping[str, Wanted]) -> Iterator[dict[str, Any]]:
    told: set[str] = set()
    for wanted in after.wanted:
        one = named.get(wanted)
        if one is not None and one.id in told:
            continue  # by its id and by its key
        told |= {one.id} if one else set()
        yield {
            "job_id": job["id"],
            "wanted": wanted,
            "on_job": one and one.id,
            "met_at": job["submitted_at"] if one and one.state is JobState.COMPLETED else None,
            "accepted": one is not None and one.state in OVER,
        }

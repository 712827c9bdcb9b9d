"""How far a job is, as its handle and the commands tell it."""

from dataclasses import dataclass

from jobrunner.states import ENDED_JOB, ENDED_TASK, JobState, TaskState
from jobrunner.store.reading import JobView

#: Share of a job whose tasks have all ended and which has not: more may be on their way.
ALMOST = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` tasks have ended, in whatever way; `counts` by state, without the zeros.

    `share` is 1.0 when the job has ended and less before, whatever `done` says. It is `growing` while tasks are at
    discovering work: `total` is only what is known so far.
    """

    done: int
    total: int
    share: float
    growing: bool
    counts: dict[TaskState, int]

    @classmethod
    def of(cls, view: JobView) -> "Progress":
        """Count the ended tasks of a job."""
        done = sum(number for state, number in view.counts.items() if state in ENDED_TASK)
        ended = view.state in ENDED_JOB
        return cls(
            done=done,
            total=view.total,
            share=1.0 if ended else min(done / max(view.total, 1), ALMOST),
            growing=not ended and (view.state is JobState.UNDER_CONSTRUCTION or view.discovering > 0),
            counts=view.counts,
        )

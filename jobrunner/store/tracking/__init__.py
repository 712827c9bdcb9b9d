"""What the tracker reads and changes, within the one transaction of a turn.

Each statement works on many rows at once; none is issued per row. Rows come and go as `jobrunner.records`.
"""

from jobrunner.store.tracking.additions import (
    additions_by_id,
    creators,
    decide_additions,
    delete_added,
    graft,
    graft_into_levels,
    has_grown,
    insert_added,
    known_tasks,
    move_values,
    next_arrivals,
    save_additions,
    unkept_additions,
)
from jobrunner.store.tracking.history import insert_history
from jobrunner.store.tracking.jobs import failed_task, jobs_by_id, mark_applied, new_jobs, update_jobs
from jobrunner.store.tracking.keeping import (
    delivered_tasks,
    doubt_values,
    keep_late_values,
    keeps_still_waiting,
    keeps_waiting,
    mark_kept,
)
from jobrunner.store.tracking.observed import (
    insert_observed_jobs,
    insert_observed_tasks,
    origins,
    trunks,
    update_observed_jobs,
    update_origins,
)
from jobrunner.store.tracking.outbox import mark_sent, queue_tasks, take_ready, unsent_tasks, work_waiting
from jobrunner.store.tracking.plans import (
    blocks_upward,
    cancel_pending,
    delay_tasks,
    first_unfinished,
    open_place,
    restore,
    update_blocks,
)
from jobrunner.store.tracking.producers import producers
from jobrunner.store.tracking.rejected import insert_rejected
from jobrunner.store.tracking.series import add_losses, forget_series, known_series, save_series
from jobrunner.store.tracking.tasks import (
    attempts_of,
    insert_attempts,
    tasks_by_celery_id,
    update_attempts,
    update_tasks,
)
from jobrunner.store.tracking.workers import (
    lose_worker,
    lossy_workers,
    note_heard,
    save_worker,
    tasks_held_by,
    unheard_tasks,
    workers_to_hear,
)

__all__ = [
    "add_losses",
    "additions_by_id",
    "attempts_of",
    "blocks_upward",
    "cancel_pending",
    "creators",
    "decide_additions",
    "delay_tasks",
    "delete_added",
    "delivered_tasks",
    "doubt_values",
    "failed_task",
    "first_unfinished",
    "forget_series",
    "graft",
    "graft_into_levels",
    "has_grown",
    "insert_added",
    "insert_attempts",
    "insert_history",
    "insert_observed_jobs",
    "insert_observed_tasks",
    "insert_rejected",
    "jobs_by_id",
    "keep_late_values",
    "keeps_still_waiting",
    "keeps_waiting",
    "known_series",
    "known_tasks",
    "lose_worker",
    "lossy_workers",
    "mark_applied",
    "mark_kept",
    "mark_sent",
    "move_values",
    "new_jobs",
    "next_arrivals",
    "note_heard",
    "open_place",
    "origins",
    "producers",
    "queue_tasks",
    "restore",
    "save_additions",
    "save_series",
    "save_worker",
    "take_ready",
    "tasks_by_celery_id",
    "tasks_held_by",
    "trunks",
    "unheard_tasks",
    "unkept_additions",
    "unsent_tasks",
    "update_attempts",
    "update_blocks",
    "update_jobs",
    "update_observed_jobs",
    "update_origins",
    "update_tasks",
    "work_waiting",
    "workers_to_hear",
]

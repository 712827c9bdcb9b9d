"""What events do within a turn; and what to do when they make it fail.

The boundary (`tracker.events`) lets only events through that should fold. If a turn fails all the same, for a reason
that lies in what it folds, the loop takes the same batch up once more, and in parts: a part that fails is undone and
halved, until the culprit is alone. It is rejected, and everything else folded.

The parts are savepoints of one transaction, the batch's own. So the position is still committed with all that the batch
did, and with what was rejected of it: a tracker that is killed meanwhile has done nothing, and whoever leads next reads
the whole batch again. No event is folded twice or rejected twice, and there is no position within a batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

from jobrunner.store import tracking
from jobrunner.store.database import is_away
from jobrunner.text import NAME, bounded
from jobrunner.wire import SNAPSHOT_APPLIED
from tracker.events import Told, integer
from tracker.fold import Event
from tracker.folding import fold
from tracker.logs import keep_logs
from tracker.recover import forget_receipts
from tracker.replay import replay
from tracker.turn import Turn

#: Queues of a worker that are kept.
_QUEUES = 1_000


def absorb(turn: Turn, events: Sequence[Event], replaced: Collection[str]) -> None:
    """Let events move tasks, plans and workers; of `replaced` processes no worker is told any more."""
    fold(turn, events)
    turn.move_on()
    replay(turn, events)
    keep_logs(turn.connection, events)
    for event in events:
        if event.source is None or event.source in replaced:
            continue  # what a process that was replaced says late is nothing about its successor
        if event.type in {"worker-online", "worker-offline"}:
            online = event.type == "worker-online"
            if online:
                forget_receipts(turn, event.worker, event.source, event.at)
            tracking.save_worker(turn.connection, event.worker, event.source, event.pid, online=online, now=turn.now)
        elif event.type == SNAPSHOT_APPLIED:
            _acknowledge(turn, event, event.source)


def _acknowledge(turn: Turn, event: Event, source: str) -> None:
    """Note which version of the snapshot a worker goes by, and what it could not end.

    A worker says so before it says that it is there.
    """
    version, left = integer(event.fields.get("version")), event.fields.get("left")
    if version is None:
        return
    tracking.save_worker(turn.connection, event.worker, source, event.pid, online=True, now=turn.now)
    tracking.note_snapshot(turn.connection, event.worker, source, version, _queues(event.fields.get("queues")))
    turn.left |= {one: event.worker for one in left if isinstance(one, str)} if isinstance(left, list) else {}


def _queues(told: object) -> list[str] | None:
    """Return the queues that a worker says it takes tasks from; None from one that does not say."""
    names = [bounded(one, NAME) for one in told[:_QUEUES] if isinstance(one, str)] if isinstance(told, list) else None
    return names or None


def absorb_apart(turn: Turn, told: Told, replaced: Collection[str]) -> None:
    """Absorb what can be absorbed, and reject what cannot, each with the error that it met."""
    turn.settle()  # the parts count on from there

    def attempt(part: Sequence[Event]) -> None:
        with turn.apart() as alone:  # forgotten if it fails
            absorb(alone, part, replaced)

    for event, error in _culprits(told.events, attempt):
        told.rejects.add_culprit(event, error)


def _culprits(events: Sequence[Event], attempt: Callable[[Sequence[Event]], None]) -> Iterator[tuple[Event, Exception]]:
    """Attempt all, or if that fails each half; one that fails alone is a culprit."""
    try:
        attempt(events)
    except Exception as error:  # whatever an odd event may lead to; each is counted and written down
        if is_away(error):
            raise
        if len(events) == 1:
            yield events[0], error
        else:
            middle = len(events) // 2
            yield from _culprits(events[:middle], attempt)
            yield from _culprits(events[middle:], attempt)

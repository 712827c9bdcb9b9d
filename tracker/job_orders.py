"""Orders on whole jobs."""

import json

from jobrunner.errors import RefusedError
from jobrunner.order_kinds import Intent, OrderKind, Scope
from jobrunner.order_records import Answer, Requeue
from jobrunner.snapshot import Kind
from jobrunner.states import ENDED_JOB, JobState
from jobrunner.store import tracking
from jobrunner.text import SENTENCE, bounded
from tracker.holding import hold, is_known, let_go
from tracker.items import requeue_items
from tracker.ordered import OUT, Ordered, done
from tracker.requeue import begin_requeue, end_requeue
from tracker.worker_failures import lift_blocks

#: The answer to a cancellation that came after the end.
ENDED = done("It is canceled: it had ended, and nothing of it ran any more.")


class JobOrder(Ordered):
    """Carries out an order on a whole job."""

    def apply(self) -> Answer | None:
        """Carry it out; None if it is not done yet."""
        self.check(self.job.state)
        match self.order.kind:
            case OrderKind.PAUSE:
                return self._pause()
            case OrderKind.RESUME:
                return self._resume()
            case OrderKind.CANCEL:
                return self._cancel()
            case OrderKind.REQUEUE:
                return self._requeue()
            case OrderKind.UNBLOCK:
                return self._unblock()
            case _:
                return self._set()

    @property
    def _may_be_out(self) -> bool:
        """Whether a worker may get something of it: also the retry of one that was lost before it told of that."""
        job = self.job
        was_held = job.hold_version is not None  # which is so only of what was out; a requeue forgets when it started
        return was_held or job.started_at is not None or any(job.counts[state] for state in OUT)

    def _pause(self) -> Answer | None:
        job = self.job
        if job.intent == Intent.PAUSE:
            return done("It is paused already.") if job.state is JobState.PAUSED else None
        if job.will_fail is not None:
            msg = f"Job {job.id} fails as soon as what runs has ended: {job.note}."
            raise RefusedError(msg, "Wait for that and requeue it, or cancel it.")
        job.intent, job.held, job.chore = Intent.PAUSE, True, True
        job.note = f"paused {self.by}"
        if self._may_be_out:
            hold(self.turn, job, Kind.PAUSED)
        if job.state is not JobState.REQUEUEING:
            self.follow()
        self.save()
        return None

    def _resume(self) -> Answer:
        job = self.job
        if job.intent != Intent.PAUSE:
            return done("It is not paused.")
        job.intent, job.note, job.chore = None, None, True
        let_go(self.turn, job)
        self._supersede("It was resumed before that.", OrderKind.PAUSE)
        if job.state is not JobState.REQUEUEING:
            self.follow()
        self.save()
        return done(f"It is {job.state}.")

    def _cancel(self) -> Answer | None:
        job = self.job
        if job.state is JobState.CANCELED and job.intent == Intent.CANCEL:
            return done("It is canceled already.")
        grace = self.order.arguments.get("grace")
        self._supersede("It was canceled before that.", OrderKind.PAUSE, OrderKind.REQUEUE)
        job.intent, job.note, job.will_fail = Intent.CANCEL, f"canceled {self.by}", None
        if job.state in ENDED_JOB:
            job.held = False
            # A task of it that was ended by an order may be about to start in a worker that does not know of that.
            job.chore = not is_known(self.turn, job) or tracking.is_running(self.turn.connection, job.id)
            hold(self.turn, job, Kind.CANCELED, grace)  # an event may tell that something of it runs all the same
            tracking.keep_ends(self.turn.connection, job.id)
            if job.state is not JobState.CANCELED:
                self.move(JobState.CANCELED)
            self.save()
            return None if job.chore else ENDED
        if job.state is JobState.REQUEUEING:
            end_requeue(self.turn, job)
        job.held, job.chore = True, True
        if self._may_be_out:
            hold(self.turn, job, Kind.CANCELED, grace)
        if job.state is not JobState.CANCEL_REQUESTED:
            self.move(JobState.CANCEL_REQUESTED)
        self.save()
        return None

    def _requeue(self) -> Answer | None:
        job = self.job
        if self.order.arguments.get("items"):
            return self._requeue_items()
        scope = self.order.arguments.get("scope")
        scope = scope or (Scope.ALL if job.state is JobState.COMPLETED else Scope.INCOMPLETE)
        if scope == Scope.ALL:
            what = Requeue(all=True)
        else:
            senders = tracking.senders_of_unfinished(self.turn.connection, job.id)
            what = Requeue(incomplete=True, tasks=tuple(senders))
        if job.state is JobState.REQUEUEING:
            before = Requeue.loads(job.requeue)
            tracking.give_all_items(self.turn.connection, [task_id for task_id, _ in before.items])
            job.requeue = before.with_all_of(what).dumps()
        else:
            begin_requeue(self.turn, job, what, self.cause)
        self.save()
        return None

    def _requeue_items(self) -> Answer | None:
        job = self.job
        if job.state is JobState.REQUEUEING:
            msg = f"Job {job.id} is {job.state}."
            raise RefusedError(msg, "Give the order again when that is over.")
        requeue_items(self.turn, job, self.cause)
        self.save()
        return None

    def _unblock(self) -> Answer:
        worker, name = self.order.arguments.get("worker"), self.order.arguments.get("name")
        lifted = lift_blocks(self.turn, self.job.id, worker=worker, name=name)
        lines = [f"{one.worker} gets {one.name} again" for one in lifted]
        for line in lines:
            self.tell(line)
        return done(bounded(f"{', '.join(lines)}.", SENTENCE) if lines else "It was not blocked.")

    def _set(self) -> Answer:
        changes = dict(self.order.arguments)
        if "labels" in changes:
            labels = tracking.labels_of(self.turn.connection, self.job.id) | changes["labels"]
            changes["labels"] = json.dumps({name: text for name, text in labels.items() if text is not None})
        if "note" in changes:
            changes["annotation"] = changes.pop("note")
        if not changes:
            return done("Nothing was to be set.")
        before = tracking.change_job(self.turn.connection, self.job.id, changes)
        line = "; ".join(f"{name}: {before[name]} → {value}" for name, value in changes.items())
        self.tell(bounded(line, SENTENCE))
        return done(line)

    def _supersede(self, text: str, *kinds: OrderKind) -> None:
        """Answer the orders before this one that will not be carried out any more, also those to requeue a task."""
        left = [one for one in tracking.open_orders(self.turn.connection, self.job.id) if one.kind in kinds]
        answer = Answer(outcome="refused", text=text)
        tracking.answer_orders(self.turn.connection, {one.id: answer for one in left}, self.turn.now)

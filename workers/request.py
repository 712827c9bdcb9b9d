"""The request of a worker: its events say which job and which attempt they are about, and the gate lets it start."""

import signal
from functools import partial
from typing import Any

from celery.exceptions import Terminated, WorkerLostError
from celery.worker import request, state
from kombu.utils.objects import cached_property

from jobrunner.errors import InputLostError
from jobrunner.snapshot import PERSONAL, Refusal, Sent
from jobrunner.wire import HEADER, LOST, SHUT_DOWN
from workers.again import is_worth_another, try_again
from workers.gate import Gate, is_from_tracker, is_of_job, sent_of
from workers.held import tell_held
from workers.stamp import sending_for

#: Lost values that an event names; when these are there again, the next attempt tells of more.
_NAMED = 1_000
#: Seconds for which what was refused for the worker's sake stays in its hands.
_MOMENT = 1.0
#: What is told of a process that has ended.
_GONE = (Terminated, WorkerLostError, SystemExit, KeyboardInterrupt)


class Request(request.Request):
    """Adds to every task event what the tracker folds by: the job (`root_id`) and Celery's count of retries.

    Of a task that failed because what it takes is lost it tells that, too. What the gate refuses does not start.
    """

    #: What our own fields are besides those of every event, while one is sent.
    _told: dict[str, Any] | None = None
    #: When it was told to end by order, and with which signal last.
    told_to_end: float | None = None
    ended_by: signal.Signals | None = None
    #: Whether its process is gone, or will be, and it goes on as a retry: that of a hard time limit is told twice.
    _retried = False

    # ---- the gate ------------------------------------------------------------------------------------------

    @cached_property
    def sent(self) -> Sent:
        """The message as the gate judges it."""
        return sent_of(self._request_dict)

    @cached_property
    def is_of_job(self) -> bool:
        """Whether it is of a job that has a plan."""
        return is_of_job(self._request_dict)

    @property
    def is_waiting(self) -> bool:
        """Whether it goes to the pool, and nobody has taken it there."""
        return self.time_start is None and self in state.reserved_requests

    @property
    def is_running(self) -> bool:
        """Whether somebody has taken it, and not ended it."""
        return self in state.active_requests

    @property
    def _gate(self) -> Gate | None:
        return getattr(self._app, "jobrunner_gate", None)

    def revoked(self) -> bool:
        """Return whether it must not go to the pool; then it is told and out of our hands.

        Celery asks at receipt, too, if the message expires: what then waits for its time is judged when that has come.
        """
        if super().revoked():
            return True
        gate = self._gate
        if gate is None or self not in state.reserved_requests:
            return False
        refusal = gate.let_pass(self)
        if refusal is not None:
            self._hold(refusal)
        return refusal is not None

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Handle that a process has taken it, or a thread, which has not begun yet and may not be let."""
        begin = partial(super().on_accepted, pid, time_accepted)
        gate = self._gate
        if gate is None:
            begin()
        elif (refusal := gate.let_begin(self, begin)) is not None:
            self._hold(refusal)
            raise gate.stop(self.id)

    def _hold(self, refusal: Refusal) -> None:
        request.info("Task %s[%s] is held: %s", self.name, self.id, refusal)
        request.task_ready(self)
        if (refusal is Refusal.REDELIVERED and self._is_here_as_well) or tell_held(self, refusal):
            self._let_go(refusal)
        else:
            self.reject(requeue=True)

    def _let_go(self, refusal: Refusal) -> None:
        """Acknowledge what is held; what another worker would run only in a moment.

        Until then it is one of the messages that this worker may have in hand. Else who refuses them all would be the
        fastest of all, and leave none for those who work. Of a message that goes out again as it is, the broker could
        make a second one if the worker ended meanwhile: that is acknowledged at once.
        """
        later = None if self._gate is None else self._gate.later
        if later is not None and refusal in PERSONAL and is_from_tracker(self._request_dict):
            later(_MOMENT, self.acknowledge)
        else:
            self.acknowledge()

    @property
    def _is_here_as_well(self) -> bool:
        """Whether this worker has another copy of the message in hand.

        To the tracker both are one execution: to tell that this one is dropped would be to say that nobody has it.
        """
        known = [known() for known in list(state.reserved_requests.data)]  # threads change it while one looks
        mine = self.id, self.request_dict.get("retries")
        return any(one not in {None, self} and (one.id, one.request_dict.get("retries")) == mine for one in known)

    # ---- the end -------------------------------------------------------------------------------------------

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Handle that the task has failed, by an exception from the process that ran it."""
        self._note_end()
        error = _error_of(exc_info)
        if isinstance(error, _GONE) and not (self._already_revoked or self._already_cancelled):
            if self.ended_by:
                self._announce_revoked("terminated", True, int(self.ended_by), False)
                return None
            if not isinstance(error, WorkerLostError):  # Terminated: another was meant, which the process had as well
                exc_info = self._worker_lost_info(error)
                error = _error_of(exc_info)
        if isinstance(error, InputLostError):
            self._told = {LOST: error.celery_ids[:_NAMED]}
        exc_info.exception = error  # what Celery wraps for a pool would be told as `ExceptionWithTraceback()`
        with sending_for(self._request_dict, self.hostname):
            if self._goes_on(error, exc_info):
                request.task_ready(self)
                return None
            return super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Handle that the task takes too long; of a hard limit `on_failure` has heard already."""
        with sending_for(self._request_dict, self.hostname):
            if soft or not self._retried:
                super().on_timeout(soft, timeout)

    def _goes_on(self, error: BaseException, exc_info: Any) -> bool:
        """Whether a task of a job whose process is gone, or will be, is tried again: then that was sent."""
        if HEADER not in self._request_dict or state.should_terminate or not is_worth_another(self.task, error):
            return False
        if self._already_revoked or self._already_cancelled:
            return False
        if isinstance(error, WorkerLostError) and self._success_was_stored():
            return False
        self._retried = try_again(self, error, exc_info)
        return self._retried

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        """Send a retry, unless it is of a job: then `_goes_on` has seen to it."""
        return HEADER not in self._request_dict and super()._retry_worker_lost(exc, exc_info)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Cancel it because the worker is shut down cold, or has lost its broker.

        Celery retries nothing here, whatever the name says. Of the first case it says so only by that argument: there
        it is the contrary of `acks_late`.
        """
        if emit_retry is not bool(self.task.acks_late):
            self._told = {SHUT_DOWN: True}
        super().cancel(pool, signal, emit_retry)

    def _note_end(self) -> None:
        if self._gate is not None:
            self._gate.end(self)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002  Celery's own name for it
        """Send an event of this request."""
        if type == "task-succeeded":
            self._note_end()
        fields |= {"root_id": self.root_id, "retries": self.request_dict.get("retries", 0), **(self._told or {})}
        super().send_event(type, **fields)


def _error_of(exc_info: Any) -> BaseException:
    error: BaseException = exc_info.exception
    return error.exc if isinstance(error, request.ExceptionWithTraceback) else error

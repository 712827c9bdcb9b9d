"""The tasks of the integration tests, as a user would write them: an app, a JobRunner, decorated functions.

Workers import it by name. The test process imports a copy per house (`tests.house`), so nothing here is shared between
apps of one process.
"""

import ctypes
import hashlib
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery, Signature, chord, current_task, group, signature
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger

from jobrunner import CommandTask, ItemError, JobRunner, Partial, Skip, current
from jobrunner.errors import RefusedError
from tests.waiting import until

app = Celery("tests.integration.proj", set_as_current=False)
app.conf.task_routes = {"*.on_its_own_queue": {"queue": "own"}}
app.conf.result_expires = float(os.environ.get("PROJ_RESULT_EXPIRES", "86400"))
app.conf.broker_transport_options = json.loads(os.environ.get("PROJ_TRANSPORT", "{}"))
jobs = JobRunner(app)

#: A task whose every failure is worth another try, at once.
task = partial(jobs.task, shared=False, retry_backoff=False, default_retry_delay=0)
#: A task as Celery has it: no retry.
plain = partial(app.task, shared=False)


# ---- values ------------------------------------------------------------------------------------------------


@plain()
def add(x: int, y: int) -> int:
    return x + y


@plain()
def total(numbers: list[Any]) -> int:
    """Sum up numbers, however deep they are nested."""
    return sum(total(one) if isinstance(one, list) else one for one in numbers)


@plain()
def identity(value: Any = None) -> Any:
    return value


@plain(replayable=True)
def again(value: Any, path: str) -> Any:
    """Append the value to a file, and return it; may run again if it is lost."""
    _append(path, str(value))
    return value


@plain()
def factorial(number: int) -> int:
    """Call itself: the input of the job belongs to the outermost call alone."""
    return number * factorial(number - 1) if number > 1 else 1


@plain()
def large(length: int) -> str:
    return "x" * length


@plain()
def on_its_own_queue(value: Any) -> Any:
    return value


@plain(bind=True)
def meet(self: Any, *taken: Any, **named: Any) -> str:
    """Return what we have been given, in short, and leave a line about it."""
    told = [list(taken), sorted(named.items()), self.request.timelimit, getattr(self.request, "mark", None)]
    value = f"{named.get('label')}:{hashlib.blake2s(repr(told).encode(), digest_size=6).hexdigest()}"
    _append(str(Path(os.environ["JOBRUNNER_HOME"]) / "met"), f"{value} {told}")
    return value


@plain()
def meet_failure(request: Any, error: Exception, _traceback: str, *, label: str) -> None:
    """Leave a line about the failure of another task: an errback."""
    _append(str(Path(os.environ["JOBRUNNER_HOME"]) / "met"), f"{label}: {request.task} {error!r}")


@plain(bind=True)
def canvas_of(self: Any) -> list[Any]:
    """Return what a request says of the canvas that it is part of."""
    return [self.request.chain, self.request.group, self.request.chord]


# ---- items -------------------------------------------------------------------------------------------------


@task()
def find(paths: list[str], path: str, broken: str) -> Partial[list[str]]:
    """Write down how many paths we were given, and fail once if a file is there; return the paths that exist."""
    _append(path, str(len(paths)))
    if Path(broken).exists():
        Path(broken).unlink()
        message = "broken"
        raise ValueError(message)
    errors = [ItemError(item=one, message="not there") for one in paths if not Path(one).exists()]
    found = [one for one in paths if Path(one).exists()]
    return Partial(found, errors=errors, processed=len(found))


# ---- traces and gates --------------------------------------------------------------------------------------


@plain()
def append(line: Any, path: str) -> Any:
    """Append a line to a file, in one write, and return it."""
    _append(path, str(line))
    return line


@plain()
def step(number: int, line: str, path: str) -> int:
    """Append a line to a file, and return the number above."""
    _append(path, line)
    return number + 1


@task()
def hold(value: Any, gate: str) -> Any:
    """Leave our pid, then wait for a file to appear."""
    _append(str(Path(gate).with_suffix(".pids")), str(os.getpid()))
    until(Path(gate).exists, timeout=100, what=f"{gate} to appear")
    return value


@plain()
def hold_stubbornly(value: Any, gate: str) -> Any:
    """Do as `hold` does, and hear no signal that can be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hold.run(value, gate)


@plain()
def hold_until_canceled(gate: str) -> str:
    """Leave our pid, then wait until we are told that nobody wants us."""
    _append(str(Path(gate).with_suffix(".pids")), str(os.getpid()))
    until(lambda: current.canceled, timeout=100, what="this task to be canceled")
    return "gave up"


@plain()
def span(value: Any, name: str, path: str, gate: str | None = None) -> Any:
    """Write down when we start and when we end, in one file for all; in between wait for a file to appear."""
    _append(path, f"{name} start {time.time()}")
    if gate:
        until(Path(gate).exists, timeout=100, what=f"{gate} to appear")
    _append(path, f"{name} end {time.time()}")
    return value


@task(bind=True)
def record(self: Any, number: int, folder: str) -> int:
    """Write down when we start and when we end, in a file of our own: under which Celery id, in which try."""
    path, execution = f"{folder}/{number}", f"{self.request.id} {self.request.retries}"
    _append(path, f"start {execution}")
    total(list(range(20_000)))
    _append(path, f"end {execution}")
    return number


@plain()
def last(seconds: float, name: str, path: str) -> None:
    """Write down that we start, and take our time."""
    _append(path, name)
    threading.Event().wait(seconds)


@plain(bind=True)
def what_the_database_says(self: Any) -> list[list[Any]]:
    """Return state, delivery and Celery id of all tasks of this job, as they are while this one runs."""
    return [[str(one.state), one.delivery, one.celery_id] for one in jobs.get(self.request.root_id).tasks()]


@plain(bind=True)
def who_am_i(self: Any) -> dict[str, Any]:
    return {"id": self.request.id, "root_id": self.request.root_id, "retries": self.request.retries}


@plain()
def call(*signatures: dict[str, Any]) -> list[str]:
    """Send signatures, or whole canvases, by Celery's own means, and return their ids."""
    return [Signature.from_dict(one, app=app).apply_async().id for one in signatures]


@plain()
def call_by_name(name: str, *given: Any) -> str:
    return str(app.send_task(name, given).id)


@task()
def call_and_fail(times: int, path: str, signature: dict[str, Any]) -> None:
    """Send a signature, and fail so often; each time a line is left in a file."""
    _append(path, "called")
    call(signature)
    if len(Path(path).read_text().splitlines()) <= times:
        message = "not yet"
        raise ValueError(message)


@plain(bind=True)
def tell(self: Any, type_: str, degrees: int) -> None:
    """Send an event of our own."""
    self.send_event(type_, degrees=degrees)


@plain()
def report_often(times: int) -> float:
    """Say so often how far we are, as fast as we can; return how many seconds that took."""
    began = time.monotonic()
    for number in range(times):
        current.progress(number + 1, times, f"item {number}")
    return time.monotonic() - began


@plain(bind=True)
def report(self: Any, how: str, done: int, total: int, gate: str) -> None:
    """Say how far we are, in one of three ways, and wait for a file to appear."""
    if how == "current.progress":
        current.progress(done, total, how)
    elif how == "send_event":
        self.send_event("task-progress", done=done, total=total, message=how)
    else:
        self.update_state(state="PROGRESS", meta={"current": done, "total": total, "status": how})
    hold.run(None, gate)


@task(bind=True, require_progress=True)
def report_in_turn(self: Any, *tries: list[float], then: Any = None) -> None:
    """Report the shares of this try, or of the last that are given, and return, or become another task."""
    for share in tries[min(self.request.retries, len(tries) - 1)]:
        current.progress(share)
    if then:
        raise self.replace(signature(then))


@plain()
def threads() -> list[str]:
    """Return the names of all threads of our process."""
    return [one.name for one in threading.enumerate()]


# ---- failures ----------------------------------------------------------------------------------------------


@plain()
def fail(message: Any) -> None:
    raise ValueError(message)


@plain()
def need(number: int, words: str, needed: str, path: str) -> int:
    """Write down what we were given, and fail unless a file is there; return the number."""
    _append(path, f"{number} {len(words)}")
    if not Path(needed).exists():
        message = f"no {needed}"
        raise FileNotFoundError(message)
    return number


@task()
def fail_times(value: Any, times: int, path: str) -> Any:
    """Fail the first `times` times, by the lines in a file; then return the value."""
    _append(path, str(value))
    tries = len(Path(path).read_text().splitlines())
    if tries <= times:
        message = f"try {tries}"
        raise ValueError(message)
    return value


@plain(bind=True)
def fail_and_wait(self: Any, seconds: float) -> None:
    """Fail, to be tried again much later."""
    message = "not now"
    raise self.retry(exc=ValueError(message), countdown=seconds)


@plain(bind=True)
def second_try(self: Any, value: Any, seconds: float) -> Any:
    """Ask for another try after a while, and return the value in that."""
    if not self.request.retries:
        raise self.retry(countdown=seconds, exc=ValueError("not yet"))
    return value


@plain()
def die() -> None:
    """Kill our own process."""
    os.kill(os.getpid(), signal.SIGKILL)


@task()
def die_once(value: Any, path: str) -> Any:
    """Kill our own process the first time."""
    _append(path, str(value))
    if len(Path(path).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@task(bind=True)
def ail(self: Any, number: int, path: str, seconds: float = 0.0) -> int:
    """Write down where we run, and take our time; fail on a worker that is sick as long as the file SICK is there."""
    _append(path, f"{number} {self.request.hostname}")
    threading.Event().wait(seconds)
    if "SICK" in os.environ and Path(os.environ["SICK"]).exists():
        message = f"{self.request.hostname} is sick"
        raise ValueError(message)
    return number


@task(max_retries=1)
def end_oddly(how: str, path: str) -> None:
    """End without a value or an error of ours, whenever it is tried."""
    _append(path, how)
    _ODD_ENDS[how]()


@task(max_retries=1, bind=True)
def end_the_worker(self: Any, how: str, gate: str) -> None:
    """Wait for the gate of this attempt, and end our worker."""
    hold.run(None, f"{gate}{self.request.retries}")
    os.kill(os.getppid(), signal.Signals[how])
    threading.Event().wait(100)


@plain(max_retries=1, default_retry_delay=0)
def end_oddly_without_policy(how: str, path: str) -> None:
    """Do the same as a task as Celery has it."""
    end_oddly.run(how, path)


@task(max_retries=1, soft_time_limit=0.5)
def take_too_long_softly() -> None:
    threading.Event().wait(100)


@task(max_retries=1, time_limit=1)
def take_too_long() -> None:
    threading.Event().wait(100)


@task(bind=True, untouched_timeout=1, max_retries=1)
def hang(self: Any, times: int) -> str:
    """Hang, and hear nothing, so often; then return."""
    if self.request.retries < times:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait(100)
    return "at last"


@plain(bind=True, max_retries=None)
def retry_for_ever(self: Any, path: str) -> None:
    """Ask for another try, whenever it is tried."""
    _append(path, str(self.request.retries))
    raise self.retry(countdown=0)


def _raise(error: BaseException) -> None:
    raise error


def _outgrow_the_stack() -> None:
    """Need more memory than the kernel gives: by value, an argument is copied onto the stack."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    large = type("large", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_char * (1 << 26))]})
    ctypes.CDLL(None).abs(large())


_ODD_ENDS: dict[str, Callable[[], object]] = {
    "well": lambda: None,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "memory": _outgrow_the_stack,
    "ignore": lambda: _raise(Ignore()),
    "reject": lambda: _raise(Reject("no", requeue=False)),
    "requeue": lambda: _raise(Reject("not here", requeue=True)),
}


# ---- growing -----------------------------------------------------------------------------------------------


@task()
def add_children(number: int, path: str) -> str:
    """Add tasks that each leave a line."""
    current.add(group(append.si(f"child {one}", path) for one in range(number)))
    return "creator"


@task()
def add_children_and_wait(number: int, path: str, gate: str) -> None:
    """Add tasks, and wait for a file to appear."""
    add_children.run(number, path)
    hold.run(None, gate)


@task()
def wait_and_add_children(number: int, path: str, gate: str) -> None:
    """Wait for a file to appear, and add tasks."""
    hold.run(None, gate)
    add_children.run(number, path)


@task()
def add_children_and_die_once(number: int, path: str, deaths: str) -> None:
    """Add tasks, and kill our own process the first time."""
    add_children.run(number, path)
    die_once.run(None, deaths)


@task(max_retries=1)
def add_children_and_fail(number: int, path: str) -> None:
    """Add tasks in two calls, and fail, whenever it is tried."""
    add_children.run(number, path)
    add_children.run(number, path)
    fail.run("after all")


@plain()
def add_levels(levels: int, width: int, path: str) -> None:
    """Leave a line, and add tasks that do the same, down to so many levels."""
    _append(path, f"level {levels}")
    if levels:
        current.add(group(add_levels.si(levels - 1, width, path) for _ in range(width)))


@plain()
def call_itself_and_add(calls: int, path: str) -> None:
    """Call itself, and add a task in each call."""
    if calls > 1:
        call_itself_and_add(calls - 1, path)
    current.add(append.si(f"call {calls}", path))


@plain(discovers=True)
def discover(numbers: list[int], gate: str | None = None) -> None:
    """Find numbers, each of which is a task."""
    if gate:
        hold.run(None, gate)
    current.expand(group(identity.s(number) for number in numbers))


@plain(discovers=True)
def discover_nothing_but_an_error() -> None:
    current.add(identity.s(1))
    fail.run("cannot be listed")


@plain()
def expand(*canvases: Any) -> str:
    """Have the values of canvases, which are told as JSON, one in the other."""
    first, *others = canvases
    current.expand(expand.s(*others) if others else signature(first))
    return "not this"


@plain(bind=True)
def replace(self: Any, canvas: Any) -> str:
    raise self.replace(signature(canvas))


@plain()
def add_twice_over(path: str) -> str:
    """Expand twice, and go on with the first."""
    current.expand(append.si("first", path))
    try:
        current.expand(append.si("second", path))
    except RefusedError as error:
        return _append(path, str(error)) or ""
    return ""


# ---- partial and skipped -----------------------------------------------------------------------------------


@task()
def process(paths: list[str], missing: list[str]) -> Partial[list[str]]:
    """Return the paths that are not missing."""
    errors = [ItemError.of(one, FileNotFoundError(f"no {one}"), size=0) for one in paths if one in missing]
    found = [one for one in paths if one not in missing]
    return Partial(found, errors=errors, processed=len(found))


@task(require_progress=True)
def skip(value: Any, why: str) -> None:
    raise Skip(why, value=value)


@plain(bind=True)
def state_of_itself(self: Any, calls: int) -> Any:
    """Call itself, which states something, and return how many items of that failed."""
    if calls == 0:
        return Partial("inner", errors=[ItemError(item=1, message="inner")])
    returned = self(calls - 1)
    if isinstance(returned, Partial):
        return len(returned.errors)
    raise Skip(value=[returned, calls])


@plain()
def expand_in_part(canvas: Any) -> Partial[str]:
    """Have the value of a canvas, and state that an item failed."""
    current.expand(signature(canvas))
    return Partial("not this", errors=[ItemError(item="i", message="no")], processed=1)


@plain()
def fail_many(number: int) -> Partial[int]:
    """Fail so many items, each with a long message and details."""
    error = ItemError(item="/data/" + "x" * 200, message="y" * 500, type="OSError", details={"line": 7})
    return Partial(number, errors=[error] * number)


@task()
def wait_and_fail_many(number: int, gate: str) -> Partial[int]:
    """Wait for a file to appear, and fail so many items."""
    hold.run(None, gate)
    return fail_many(number)


# ---- skipped by others -------------------------------------------------------------------------------------


@plain()
def find_none(found: list[Any], *names: str) -> list[Any]:
    """Have what comes next skipped, or of that the branches of these names, and return what was found."""
    current.skip_next("nothing found", *names)
    return found


@plain(skip_empty=True)
def total_of_any(numbers: Any) -> Any:
    return total(numbers)


# ---- commands ----------------------------------------------------------------------------------------------


class Script(CommandTask):
    """Run a script of shell; a temporary failure is tried again at once."""

    name = "tests.integration.proj.script"
    shell = True
    retry_backoff = False
    default_retry_delay = 0
    grace = 0.5

    def argv(self, line: str, *words: Any) -> str:
        return line.format(*words)


script = app.register_task(Script())


# ---- logs --------------------------------------------------------------------------------------------------


@task()
def talk(gate: str) -> None:
    """Log and print, fail once, and say more when a file has appeared."""
    number = current_task.request.retries + 1
    logging.getLogger("anybody").warning("attempt %d", number)
    get_task_logger(__name__).warning("by Celery's logger")
    print("printed")  # noqa: T201  what is tested
    if number == 1:
        raise ValueError
    until(Path(gate).exists, timeout=100, what=f"{gate} to appear")
    print("late", file=sys.stderr)  # noqa: T201


@plain()
def chatter(lines: int) -> None:
    """Log so many lines, as fast as can be."""
    logger = logging.getLogger("chatter")
    logger.propagate = False  # so that the worker's own log stays short
    for number in range(lines):
        logger.warning("line %d of %d", number, lines)


@plain(keeps_log=False)
def whisper() -> None:
    """Print what nobody is to keep."""
    print("secret")  # noqa: T201


# ---- named jobs --------------------------------------------------------------------------------------------


@jobs.job("sum")
def sum_of(numbers: int) -> Signature:
    return chord(group(identity.s(number) for number in range(numbers)), total.s())


@jobs.job("held")
def held(tasks: int, gate: str, path: str) -> Signature:
    """Tasks that wait for a file to appear, each followed by one that leaves a line."""
    steps = [hold.s(number, gate) | append.s(path) for number in range(tasks)]
    return chord(steps, total.s())


def _append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)

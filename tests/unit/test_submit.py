"""Submitting with nothing but a database file: what is refused, what is written, and what binding changes in an app."""

import json
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import Celery, chain, chord, group
from celery.worker.request import Request
from kombu import Exchange, Queue
from kombu.serialization import loads, registry
from sqlalchemy import insert, update

import workers.request
import workers.task
from jobrunner import JobRunner, ids, submit
from jobrunner.condition import why_waiting
from jobrunner.embedded import broker
from jobrunner.envelope import Envelopes
from jobrunner.errors import (
    ConfigurationError,
    InvalidCanvasError,
    InvalidParametersError,
    JobrunnerError,
    KeyConflictError,
    NotFoundError,
    UnreachableError,
)
from jobrunner.handle import Job
from jobrunner.plan import from_canvas
from jobrunner.retry_policy import RETRY_POLICY
from jobrunner.states import JobState, TaskState
from jobrunner.store import leases, reading, schema
from jobrunner.store.database import Database
from tests.apps import count_rows, new_app, new_database, new_runner, nobody, read_rows, sqlite_url, store
from tests.builders import MIDNIGHT
from tests.servers.databases import DATABASES, new_database_on


def _named(value: object) -> str:
    """Return a name for a case that is the same in every process."""
    return repr(value).partition(" at 0x")[0]


@pytest.fixture
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobRunner]:
    """Return a runner on SQLite; what is about the database itself is marked to run on each kind."""
    with new_database_on(getattr(request, "param", "sqlite"), request, tmp_path) as url:
        runner = new_runner(tmp_path, database=url)
        yield runner
        runner.database.close()


on_each_database = pytest.mark.parametrize("jobs", DATABASES, indirect=True)


def add(jobs: JobRunner, *args: Any, **kwargs: Any) -> Any:
    return jobs.app.tasks["add"].s(*args, **kwargs)


def total(jobs: JobRunner) -> Any:
    return jobs.app.tasks["total"].s()


def anything(jobs: JobRunner, *args: Any, **kwargs: Any) -> Any:
    return jobs.app.tasks["anything"].s(*args, **kwargs)


def refuse(jobs: JobRunner, canvas: Any, error: type[JobrunnerError], code: int, **options: Any) -> JobrunnerError:
    """Submit, expect the error with a sentence, a remedy and an exit code, and nothing new in any table."""
    before = count_rows(jobs.database)
    with pytest.raises(error) as caught:
        jobs.submit(canvas, **options)
    assert caught.value.exit_code == code
    assert caught.value.remedy.endswith(".")
    assert "\n" not in str(caught.value)
    assert count_rows(jobs.database) == before
    return caught.value


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, 7, "add", ["add"], {"x": 1}, lambda: None], ids=_named)
def test_what_is_no_canvas_is_refused(jobs: JobRunner, thing: Any) -> None:
    error = refuse(jobs, thing, InvalidCanvasError, 2)
    assert str(error) == f"canvas: {type(thing).__name__} is no canvas. {error.remedy}"
    assert "signature" in error.remedy


def test_a_task_in_place_of_its_signature_is_refused_with_the_way_to_write_it(jobs: JobRunner) -> None:
    assert "add.s(" in refuse(jobs, jobs.app.tasks["add"], InvalidCanvasError, 2).remedy


def test_an_unregistered_task_is_refused_by_name_and_place(jobs: JobRunner) -> None:
    canvas = chain(add(jobs, 1, 2), celery.signature("elsewhere.work", app=jobs.app))
    error = refuse(jobs, canvas, InvalidCanvasError, 2)
    assert "'elsewhere.work' is not registered" in error.problem
    assert "canvas.tasks[1]" in error.problem


def test_a_task_of_an_app_that_was_never_bound_is_refused(tmp_path: Path) -> None:
    app = new_app(tmp_path)

    @app.task(name="plain", shared=False)
    def plain() -> None: ...

    with pytest.raises(InvalidCanvasError, match="'plain' is not prepared") as caught:
        submit.prepare(app, plain.s(), name=None, key=None)
    assert caught.value.exit_code == 2
    assert "JobRunner(app)" in caught.value.remedy


def test_a_task_that_sends_no_events_is_refused(jobs: JobRunner) -> None:
    @jobs.task(name="silent", send_events=False, shared=False)
    def silent() -> None: ...

    assert "'silent' has send_events=False" in refuse(jobs, silent.s(), InvalidCanvasError, 2).problem


@pytest.mark.parametrize(
    "arguments", [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1, 2), {"z": 3}), ((1,), {"x": 1})], ids=repr
)
def test_arguments_that_do_not_fit_the_signature_are_refused(jobs: JobRunner, arguments: Any) -> None:
    args, kwargs = arguments
    error = refuse(jobs, add(jobs, *args, **kwargs), InvalidCanvasError, 2)
    assert "the arguments do not fit: add()" in error.problem


def test_the_value_of_the_task_before_counts_as_first_argument(jobs: JobRunner) -> None:
    assert store(jobs, chain(add(jobs, 1, 2), add(jobs, 3)))
    error = refuse(jobs, chain(add(jobs, 1, 2), add(jobs, 3, 4)), InvalidCanvasError, 2)
    assert "canvas.tasks[1]" in error.problem


def test_a_task_without_typing_takes_what_it_is_given(jobs: JobRunner) -> None:
    @jobs.task(name="loose", typing=False, shared=False)
    def loose(x: int) -> int:
        return x

    assert store(jobs, loose.s(1, 2, 3))


def test_arguments_that_cannot_be_serialized_are_refused_with_their_place_deep_in_a_chord(jobs: JobRunner) -> None:
    inner = chain(add(jobs, 1, 2), group(anything(jobs, 3), anything(jobs, object())))
    error = refuse(jobs, chord([add(jobs, 1, 2), inner], anything(jobs)), InvalidCanvasError, 2)
    assert "canvas.tasks[1].tasks[1].tasks[1]: the arguments of anything cannot be serialized as json" in error.problem


def test_arguments_that_a_chosen_serializer_takes_are_accepted(jobs: JobRunner) -> None:
    store(jobs, anything(jobs, {1, 2}).set(serializer="pickle"))
    (row,) = read_rows(jobs.database, "message")
    assert row["content_type"] == "application/x-python-serialize"
    assert row["content_encoding"] == "binary"
    accept = {"application/x-python-serialize"}
    assert loads(row["body"], row["content_type"], row["content_encoding"], accept=accept)[0] == ({1, 2},)


@pytest.mark.parametrize("eta", [datetime(2026, 1, 1), "2026-01-01T00:00:00", 5], ids=repr)  # noqa: DTZ001  on purpose
def test_an_eta_without_time_zone_is_refused(jobs: JobRunner, eta: Any) -> None:
    error = refuse(jobs, add(jobs, 1, 2).set(eta=eta), InvalidCanvasError, 2)
    assert "no aware datetime" in error.problem
    assert "time zone" in error.remedy


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"countdown": "soon"}, "countdown='soon'"),
        ({"countdown": float("nan")}, "countdown=nan"),
        ({"countdown": 1e18}, "countdown=1e+18"),
        ({"serializer": "morse"}, "'morse' of add is not installed"),
        ({"expires": timedelta(1)}, "the options of add do not fit"),
        ({"expires": 1e300}, "the options of add do not fit"),
        ({"time_limit": timedelta(1)}, "the options of add do not fit"),
        ({"headers": {"shape": object()}}, "the options of add do not fit"),
        ({"priority": object()}, "the options of add do not fit"),
        ({"priority": 1000}, "priority=1000 is no number from 0 to 255"),
        ({"compression": "nope"}, "the options of add do not fit ('nope')"),
        ({"expires": float("nan")}, "the options of add do not fit (expires=nan)"),
        ({"headers": {"x": float("inf")}}, "the options of add do not fit"),
        ({"queue": "q\x00"}, "the queue 'q\ufffd' is no text"),
        ({"queue": "q\ud800"}, "the queue 'q\ufffd' is no text"),
        ({"queue": "q" * 256}, "is no text of at most 255 characters"),
        ({"task_id": 7}, "its task_id 7 is no text"),
        ({"task_id": "x" * 256}, "no text of at most 255"),
        ({"link": len}, "canvas.link[0]: builtin_function_or_method is no canvas"),
        ({"link_error": [{"task": 7}]}, "canvas.link_error[0]: this callback names no task (7)"),
    ],
    ids=_named,
)
def test_an_option_that_cannot_be_kept_is_refused(jobs: JobRunner, options: Any, problem: str) -> None:
    assert problem in refuse(jobs, add(jobs, 1, 2).set(**options), InvalidCanvasError, 2).problem


@pytest.mark.parametrize("args", ["ab", {"x": 1}], ids=str)
def test_arguments_that_are_no_list_are_refused(jobs: JobRunner, args: Any) -> None:
    signature = anything(jobs)
    signature["args"] = args
    assert "its arguments must be a list" in refuse(jobs, signature, InvalidCanvasError, 2).problem


def test_headers_that_a_broker_would_drop_are_refused(jobs: JobRunner) -> None:
    assert store(jobs, add(jobs, 1, 2).set(headers={"notes": "x" * 99_000}))
    canvas = group(add(jobs, 1, 2), add(jobs, 1, 2).set(headers={"notes": "x" * 100_000}))
    error = refuse(jobs, canvas, InvalidCanvasError, 2)
    assert "canvas.tasks[1]: the headers of add have 100," in error.problem
    assert "arguments" in error.remedy


def test_a_queue_that_the_app_does_not_have_is_refused(jobs: JobRunner) -> None:
    jobs.app.conf.task_create_missing_queues = False
    error = refuse(jobs, add(jobs, 1, 2).set(queue="attic"), InvalidCanvasError, 2)
    assert "'attic'" in error.problem


def test_a_task_id_given_twice_is_refused_with_both_places(jobs: JobRunner) -> None:
    canvas = group(add(jobs, 1, 2).set(task_id="mine"), add(jobs, 1, 2).set(task_id="mine"))
    error = refuse(jobs, canvas, InvalidCanvasError, 2)
    assert "canvas.tasks[1]: its task_id 'mine' is also that of canvas.tasks[0]" in error.problem


@on_each_database
def test_a_task_id_of_another_job_is_refused_with_that_job(jobs: JobRunner) -> None:
    first = store(jobs, add(jobs, 1, 2).set(task_id="mine"))
    error = refuse(jobs, group(add(jobs, 3, 4), add(jobs, 1, 2).set(task_id="mine")), InvalidCanvasError, 2)
    assert f"canvas.tasks[1]: its task_id 'mine' is that of a task of job {first}" in error.problem


@on_each_database
@pytest.mark.parametrize("what", ["key", "name"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [("x" * 256, "has 256 characters"), ("", "has 0 characters"), ("a\x00b", "no database"), ("\udcff", "no database")],
)
def test_a_key_or_name_that_no_column_holds_is_refused(jobs: JobRunner, what: str, text: str, problem: str) -> None:
    error = refuse(jobs, add(jobs, 1, 2), InvalidParametersError, 2, **{what: text})
    assert error.problem.startswith(f"The {what} ")
    assert problem in error.problem


@on_each_database
def test_the_longest_key_is_accepted(jobs: JobRunner) -> None:
    store(jobs, add(jobs, 1, 2), key="x" * 255, name="y" * 255)
    assert read_rows(jobs.database, "job")[0]["key"] == "x" * 255


# ---- the database is away ----------------------------------------------------------------------------------


def missing(folder: Path) -> Path:
    return folder / "missing.db"


def no_database(folder: Path) -> Path:
    path = folder / "letter.db"
    path.write_text("Dear Sir or Madam, this is no database. " * 100)
    return path


def away_folder(folder: Path) -> Path:
    return folder / "unmounted" / "jobs.db"


def folder_itself(folder: Path) -> Path:
    return folder


def without_tables(folder: Path) -> Path:
    path = folder / "foreign.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE thing (id)")
    connection.close()
    return path


@pytest.mark.parametrize(
    ("place", "problem", "remedy"),
    [
        (missing, "There is no database at {}.", "jobrunner up"),
        (away_folder, "There is no database at {}.", "jobrunner db upgrade"),
        (no_database, "The database {} cannot be used (file is not a database).", "JOBRUNNER_DATABASE"),
        (folder_itself, "The database {} cannot be used (unable to open database file).", "JOBRUNNER_DATABASE"),
        (without_tables, "The database {} holds no jobrunner tables.", "jobrunner db upgrade"),
    ],
)
def test_a_database_that_is_away_is_told_with_its_place_and_nothing_is_made(
    tmp_path: Path, place: Callable[[Path], Path], problem: str, remedy: str
) -> None:
    path = place(tmp_path)
    before = path.read_bytes() if path.is_file() else None
    jobs = JobRunner(new_app(tmp_path), database=f"sqlite:///{path}")

    @jobs.task(name="work", shared=False)
    def work() -> None: ...

    with pytest.raises(UnreachableError) as caught:
        jobs.submit(work.s())
    jobs.database.close()
    assert caught.value.exit_code == 5
    assert caught.value.problem == problem.format(path)
    assert remedy in caught.value.remedy
    if place is not without_tables:  # that one is a database, and becomes one in WAL mode
        assert (path.read_bytes() if path.is_file() else None) == before
    assert not (tmp_path / "unmounted").exists()


def test_a_database_lost_within_the_transaction_leaves_nothing_half_written(jobs: JobRunner) -> None:
    with jobs.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE message")
    with pytest.raises(UnreachableError, match="no such table: message"):
        store(jobs, chain(add(jobs, 1, 2), add(jobs, 3)))
    with jobs.database.read() as connection:
        written = {
            name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()  # noqa: S608  our own names
            for name in ("job", "block", "task")
        }
    assert written == {"job": 0, "block": 0, "task": 0}


# ---- the broker is away ------------------------------------------------------------------------------------


@on_each_database
def test_with_the_broker_away_a_job_is_queued_and_says_what_it_waits_for(jobs: JobRunner) -> None:
    job = jobs.submit(chord([add(jobs, 1, 2), add(jobs, 3, 4)], total(jobs)))
    assert job.state is JobState.QUEUED
    assert (job.progress.done, job.progress.total, job.progress.counts) == (0, 3, {TaskState.PENDING: 3})
    assert [task.state for task in job.tasks()] == [TaskState.PENDING] * 3
    assert why(jobs, job) == "no tracker is running: start one with `jobrunner up` or `jobrunner tracker`"


@on_each_database
def test_a_job_says_what_keeps_the_tracker_from_its_work(jobs: JobRunner) -> None:
    job = jobs.get(store(jobs, add(jobs, 1, 2)))
    with jobs.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
    assert why(jobs, job) == "the tracker has not taken it up yet"
    with jobs.database.write() as connection:
        leases.renew(connection, "tracker", 60, "the broker cannot be reached")
    assert why(jobs, job) == "the broker cannot be reached"
    with jobs.database.write() as connection:
        leases.release(connection, "tracker")
    assert "no tracker is running" in str(why(jobs, job))


@on_each_database
@pytest.mark.parametrize("state", ["n_queued", "n_soft_failed"])
def test_a_job_whose_tasks_wait_for_a_worker_and_there_is_none_says_so(jobs: JobRunner, state: str) -> None:
    job = jobs.get(store(jobs, add(jobs, 1, 2)))
    with jobs.database.write() as connection:
        leases.acquire(connection, "tracker", 60)
        connection.execute(update(schema.job).values({"applied_at": MIDNIGHT, "n_pending": 0, state: 1}))
    assert why(jobs, job) == "no worker is online: start one with `jobrunner up` or `jobrunner worker`"
    with jobs.database.write() as connection:
        worker = {"name": "w@host", "source": "source", "online": True, "online_at": MIDNIGHT, "seen_at": MIDNIGHT}
        connection.execute(insert(schema.worker).values(worker))
    assert why(jobs, job) is None


@on_each_database
def test_a_job_that_has_ended_waits_for_nothing(jobs: JobRunner) -> None:
    job = jobs.get(store(jobs, add(jobs, 1, 2)))
    with jobs.database.write() as connection:
        connection.exec_driver_sql("UPDATE job SET state = 'completed'")
    assert why(jobs, job) is None


def why(jobs: JobRunner, job: Job) -> str | None:
    with jobs.database.read() as connection:
        return why_waiting(job.view, leases.tracker_status(connection), reading.workers_online(connection))


@on_each_database
def test_a_job_that_does_not_exist_is_told_when_it_is_asked(jobs: JobRunner) -> None:
    with pytest.raises(NotFoundError, match="There is no job nowhere in") as caught:
        _ = jobs.get("nowhere").state
    assert jobs.database.where in caught.value.problem


# ---- keys --------------------------------------------------------------------------------------------------


@on_each_database
def test_the_same_key_with_the_same_content_is_the_same_job(jobs: JobRunner) -> None:
    def canvas() -> Any:
        return chord([add(jobs, 1, 2), chain(add(jobs, 3, 4), add(jobs, y=5))], total(jobs))

    first = store(jobs, canvas(), key="nightly")
    before = count_rows(jobs.database)
    assert store(jobs, canvas(), key="nightly") == first
    assert jobs.submit(canvas(), key="nightly").id == first
    assert count_rows(jobs.database) == before
    assert store(jobs, canvas(), key="weekly") != first
    assert store(jobs, canvas()) != first


@on_each_database
def test_the_same_key_with_other_content_is_refused(jobs: JobRunner) -> None:
    first = store(jobs, chain(add(jobs, 1, 2), anything(jobs, 3)), key="nightly")
    one, two = jobs.app.tasks["add"], jobs.app.tasks["anything"]
    others = {
        "an argument": chain(one.s(1, 9), two.s(3)),
        "a keyword argument": chain(one.s(1, 2), two.s(3, x=1)),
        "another task": chain(two.s(1, 2), two.s(3)),
        "one task less": one.s(1, 2),
        "one task more": chain(one.s(1, 2), two.s(3), two.s(3)),
        "side by side": group(one.s(1, 2), two.s(3)),
        "without the value before": chain(one.s(1, 2), two.si(3)),
        "another queue": chain(one.s(1, 2), two.s(3).set(queue="other")),
    }
    for what, canvas in others.items():
        error = refuse(jobs, canvas, KeyConflictError, 4, key="nightly")
        assert f"'nightly' belongs to job {first}" in error.problem, what


@on_each_database
def test_the_same_key_with_another_failure_rule_is_other_content(jobs: JobRunner) -> None:
    def submit(**policy: Any) -> str:
        return jobs.submit(add(jobs, 1, 2), key="nightly", **policy).id

    first = submit(threshold=0.1)
    assert submit(threshold=0.1) == first
    for policy in ({}, {"threshold": 0.2}, {"on_failure": "cancel"}, {"threshold": 0.1, "propagate_failures": False}):
        with pytest.raises(KeyConflictError, match="other tasks, arguments or failure rules"):
            submit(**policy)


@on_each_database
def test_the_same_key_with_a_barrier_is_other_content(jobs: JobRunner) -> None:
    first = jobs.submit(add(jobs, 1, 2), key="k", barrier=True)
    assert first.view.barrier
    assert jobs.submit(add(jobs, 1, 2), key="k", barrier=True).id == first.id
    with pytest.raises(KeyConflictError):
        jobs.submit(add(jobs, 1, 2), key="k")


def test_a_refused_canvas_does_not_take_its_key(jobs: JobRunner) -> None:
    refuse(jobs, add(jobs, 1), InvalidCanvasError, 2, key="nightly")
    assert store(jobs, add(jobs, 1, 2), key="nightly")


@on_each_database
def test_the_same_key_and_task_ids_are_the_same_job(jobs: JobRunner) -> None:
    first = store(jobs, add(jobs, 1, 2).set(task_id="mine"), key="nightly")
    assert store(jobs, add(jobs, 1, 2).set(task_id="mine"), key="nightly") == first


# ---- what is written ---------------------------------------------------------------------------------------


@on_each_database
def test_a_job_of_nothing_is_written_too(jobs: JobRunner) -> None:
    job = jobs.get(store(jobs, group([], app=jobs.app)))
    assert (job.view.total, job.view.name) == (0, "empty")


@on_each_database
def test_beside_its_canvas_a_large_job_takes_little_memory_per_task(jobs: JobRunner) -> None:
    number = 5_000
    canvas = chord([add(jobs, number, 1) for number in range(number)], jobs.app.tasks["total"].s())
    store(jobs, add(jobs, 1, 2))  # what is made once is there
    tracemalloc.start()
    try:
        store(jobs, canvas)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / number < 1_500


def test_the_name_is_the_last_task_unless_given(jobs: JobRunner) -> None:
    assert jobs.get(store(jobs, chain(add(jobs, 1, 2), anything(jobs)))).view.name == "anything"
    assert jobs.get(store(jobs, add(jobs, 1, 2), name="mine")).view.name == "mine"


@on_each_database
def test_a_canvas_that_went_through_json_is_accepted(jobs: JobRunner) -> None:
    canvas = json.loads(json.dumps(chord([add(jobs, 1, 2), chain(add(jobs, 3, 4), add(jobs, y=5))], total(jobs))))
    assert jobs.get(store(jobs, canvas)).view.total == 4


@on_each_database
def test_the_canvas_of_the_caller_stays_as_it_is(jobs: JobRunner) -> None:
    canvas = chord([add(jobs, 1, 2), chain(add(jobs, 3, 4), add(jobs, y=5))], total(jobs))
    before = json.dumps(canvas)
    assert store(jobs, canvas) != store(jobs, canvas)
    assert json.dumps(canvas) == before


@on_each_database
def test_countdown_and_eta_are_kept_in_the_row_and_not_in_the_message(jobs: JobRunner) -> None:
    eta = datetime(2027, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    canvas = group(
        add(jobs, 1, 2).set(countdown=1.5),
        add(jobs, 1, 2).set(countdown=timedelta(minutes=2)),
        add(jobs, 1, 2).set(eta=eta),
        add(jobs, 1, 2),
    )
    store(jobs, canvas)
    rows = read_rows(jobs.database, "task")
    assert [(row["countdown"], row["not_before"]) for row in rows] == [
        (1.5, None),
        (120.0, None),
        (None, eta),
        (None, None),
    ]
    assert [json.loads(row["headers"])["eta"] for row in read_rows(jobs.database, "message")] == [None] * 4


@on_each_database
def test_a_body_decodes_to_what_celery_would_put_there(jobs: JobRunner) -> None:
    signature = anything(jobs, 1, "zwei", moment=datetime(2026, 1, 1, tzinfo=UTC), deep={"a": [None, 1.5]})
    store(jobs, signature)
    (row,) = read_rows(jobs.database, "message")
    task = jobs.app.amqp.as_task_v2("id", "anything", signature.args, signature.kwargs)
    args, kwargs, embed = loads(row["body"], row["content_type"], row["content_encoding"])
    assert (tuple(args), kwargs, embed) == task.body


#: Options of one call, each of which changes what is sent.
CALLS: dict[str, dict[str, Any]] = {
    "none": {},
    "queue": {"queue": "other"},
    "routed by name": {"routed": True},
    "priority": {"priority": 7},
    "expires": {"expires": datetime(2036, 1, 1, tzinfo=UTC)},
    "limits": {"time_limit": 60, "soft_time_limit": 50.5},
    "shadow": {"shadow": "adder"},
    "headers": {"headers": {"tenant": "eu"}},
    "ignore_result": {"ignore_result": True},
    "serializer": {"serializer": "pickle"},
    "transient": {"delivery_mode": 1},
    "callbacks": {
        "link": [celery.signature("first", args=(1,)), chain(celery.signature("second"), celery.signature("third"))],
        "link_error": celery.signature("fourth", immutable=True),
    },
}


#: Those that a task may have itself; Celery deprecates the others there.
OF_TASKS = ("expires", "limits", "ignore_result", "serializer")


@pytest.mark.parametrize(("what", "on"), [*((one, "call") for one in CALLS), *((one, "task") for one in OF_TASKS)])
def test_a_message_is_what_celery_sends(tmp_path: Path, what: str, on: str) -> None:
    options = dict(CALLS[what])
    app = new_app(tmp_path, broker="memory://", backend="cache+memory://")
    app.conf.task_default_queue = f"{tmp_path}"  # the transport's queues are those of the process
    routed = "routed." if options.pop("routed", False) else ""
    app.conf.task_routes = {"routed.*": {"queue": "other", "priority": 3}}
    jobs = JobRunner(app, database=new_database(tmp_path))

    @app.task(name=f"{routed}work", **options if on == "task" else {}, shared=False)
    def work(*args: Any, **kwargs: Any) -> None: ...

    signature = work.s(1, "zwei", drei=[3]).set(**options if on == "call" else {})
    store(jobs, signature)
    (row,) = read_rows(jobs.database, "message")
    jobs.database.close()
    properties, headers = json.loads(row["properties"]), json.loads(row["headers"])

    signature.apply_async()
    with app.connection_for_read() as connection:
        sent = connection.default_channel.basic_get(properties["routing_key"], no_ack=True)
        connection.default_channel.queue_purge(properties["routing_key"])
    assert row["body"] == (sent.body.encode() if isinstance(sent.body, str) else sent.body)
    assert (row["content_type"], row["content_encoding"]) == (sent.content_type, sent.content_encoding)
    per_delivery = {"id", "root_id", "retries"}
    assert headers == {name: value for name, value in sent.headers.items() if name not in per_delivery}
    delivered = sent.delivery_info | sent.properties
    assert properties == {name: delivered[name] for name in properties}
    assert ("priority" in properties) == (what == "priority" or bool(routed))
    assert properties["routing_key"] == ("other" if what == "queue" or routed else str(tmp_path))


@on_each_database
def test_the_queue_of_a_task_is_the_queues_name_also_behind_a_topic_exchange(jobs: JobRunner) -> None:
    jobs.app.conf.task_queues = [Queue("reports", Exchange("office", type="topic"), routing_key="report.#")]
    store(jobs, add(jobs, 1, 2).set(queue="reports", routing_key="report.weekly"))
    assert read_rows(jobs.database, "task")[0]["queue"] == "reports"
    properties = json.loads(read_rows(jobs.database, "message")[0]["properties"])
    assert (properties["exchange"], properties["routing_key"]) == ("office", "report.weekly")


@pytest.mark.parametrize("kind", ["map", "starmap", "chunks"])
def test_unlike_celery_a_map_goes_where_its_task_goes_wherever_it_stands(jobs: JobRunner, kind: str) -> None:
    jobs.app.conf.task_routes = {"add": {"queue": "sums"}}
    made = getattr(jobs.app.tasks["add"], kind)([(1, 2), (3, 4)], *([2] if kind == "chunks" else []))
    store(jobs, chain(anything(jobs, 1), group(made, anything(jobs))))
    queues = [row["queue"] for row in sorted(read_rows(jobs.database, "task"), key=lambda row: row["arrival"])]
    assert queues == ["celery", "sums", "celery"]


def test_a_route_name_is_what_the_router_is_asked_for(jobs: JobRunner) -> None:
    jobs.app.conf.task_routes = {"add": {"queue": "sums"}}
    store(jobs, group(anything(jobs), anything(jobs).set(route_name="add")))
    assert sorted(row["queue"] for row in read_rows(jobs.database, "task")) == ["celery", "sums"]


@on_each_database
def test_a_relative_expiry_is_kept_in_seconds_for_it_counts_from_sending(jobs: JobRunner) -> None:
    store(jobs, add(jobs, 1, 2).set(expires=60))
    (row,) = read_rows(jobs.database, "message")
    assert json.loads(row["headers"])["expires"] == 60.0


@on_each_database
def test_what_another_task_takes_is_stored_whatever_ignore_result_says(jobs: JobRunner) -> None:
    first = add(jobs, 1, 2).set(ignore_result=True)
    inner, last, other = (add(jobs, number).set(ignore_result=True) for number in range(3))
    store(jobs, chain(first, group(chain(inner, last), other), add(jobs, [])))
    headers = [json.loads(row["headers"])["ignore_result"] for row in read_rows(jobs.database, "message")]
    assert sorted(headers) == [False] * 5


@on_each_database
def test_what_nobody_takes_may_be_ignored(jobs: JobRunner) -> None:
    store(jobs, add(jobs, 1, 2).set(ignore_result=True))
    assert json.loads(read_rows(jobs.database, "message")[0]["headers"])["ignore_result"] is True


def test_like_tasks_share_an_envelope_and_no_others(jobs: JobRunner) -> None:
    jobs.prepare_tasks()
    canvas = group(
        add(jobs, 1, 2).set(queue="a"),
        add(jobs, 3, 4).set(queue="a", task_id="mine", countdown=5),
        add(jobs, 1, 2).set(queue="b"),
        add(jobs, 1, 2).set(queue=Queue("a")),
        add(jobs, 1, 2).set(queue=Queue("a")),
    )
    envelopes = Envelopes(jobs.app)
    leaves = from_canvas(canvas, new_id=ids.uuid7).leaves
    found = [envelopes.of(jobs.app.tasks["add"], leaf, is_taken=False) for leaf in leaves]
    assert found[0] is found[1]
    assert len({id(envelope) for envelope in found}) == 4
    assert envelopes.of(jobs.app.tasks["add"], leaves[0], is_taken=True) is not found[0]


@on_each_database
def test_a_compressed_message_is_compressed_when_it_is_sent(jobs: JobRunner) -> None:
    store(jobs, add(jobs, 1, 2).set(compression="zlib"))
    assert json.loads(read_rows(jobs.database, "message")[0]["properties"])["compression"] == "zlib"


@on_each_database
def test_stamps_travel_in_the_headers(jobs: JobRunner) -> None:
    signature = add(jobs, 1, 2)
    signature.stamp(tenant="eu")
    store(jobs, signature)
    headers = json.loads(read_rows(jobs.database, "message")[0]["headers"])
    assert (headers["stamped_headers"], headers["stamps"]) == (["tenant"], {"tenant": "eu"})


# ---- tasks -------------------------------------------------------------------------------------------------


def test_a_task_of_ours_retries_by_the_policy(jobs: JobRunner) -> None:
    @jobs.task
    def bare() -> None: ...

    @jobs.task(name="named", max_retries=9, retry_jitter=False, acks_late=True, shared=False)
    def named() -> None: ...

    assert {name: getattr(bare, name) for name in RETRY_POLICY} == dict(RETRY_POLICY)
    assert (named.max_retries, named.retry_jitter, named.acks_late) == (9, False, True)
    assert named.autoretry_for == (Exception,)


def test_a_task_of_the_app_is_left_as_it_is(jobs: JobRunner) -> None:
    @jobs.app.task(name="plain", shared=False)
    def plain() -> int:
        return 7

    jobs.prepare_tasks()
    assert plain.max_retries == celery.Task.max_retries
    assert not getattr(plain, "autoretry_for", ())
    assert plain() == 7
    assert plain.run() == 7
    assert store(jobs, plain.s())


class Counting(celery.Task):
    """A base of the user's, with a call of its own."""

    abstract = True
    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().__call__(*args, **kwargs)


class OwnRequest(Request):
    """A request class of the user's."""


def test_a_task_with_a_base_of_its_own_keeps_it_and_gets_ours(jobs: JobRunner) -> None:
    @jobs.task(name="counted", base=Counting, shared=False)
    def counted(x: int) -> int:
        return x * 2

    jobs.prepare_tasks()
    assert counted(21) == 42
    assert counted.calls == 1
    assert isinstance(counted, Counting)
    assert isinstance(counted, workers.task.Task)
    assert not issubclass(Counting, workers.task.Task)
    assert store(jobs, counted.s(1))


class Sending(celery.Task):
    """A base of the user's that sends in a way of its own."""

    abstract = True

    def apply_async(self, *_args: Any, **_options: Any) -> Any:
        message = "nobody is to send this"
        raise AssertionError(message)


def test_unlike_celery_an_apply_async_of_the_users_is_not_asked_for_the_message(jobs: JobRunner) -> None:
    @jobs.app.task(name="sending", base=Sending, shared=False)
    def sending(x: int) -> int:
        return x

    store(jobs, chain(sending.s(1), group(sending.s(), sending.s())))
    assert count_rows(jobs.database)["message"] == 3


def test_a_request_class_of_the_users_stays_behind_ours(jobs: JobRunner) -> None:
    @jobs.app.task(name="asked", Request=OwnRequest, shared=False)
    def asked() -> None: ...

    jobs.prepare_tasks()
    own, plain = asked.Request, jobs.app.tasks["add"].Request
    assert own.__mro__.index(workers.request.Request) < own.__mro__.index(OwnRequest)
    assert plain is workers.request.Request


def test_tasks_that_are_classes_and_inherit_from_each_other_are_prepared(jobs: JobRunner) -> None:
    class Parent(jobs.app.Task):  # type: ignore[name-defined, misc]
        name = "parent"

        def run(self) -> str:
            return self.name

    class Child(Parent):
        name = "child"

    child, parent = jobs.app.register_task(Child()), jobs.app.register_task(Parent())
    jobs.prepare_tasks()
    assert (child(), parent()) == ("child", "parent")
    assert store(jobs, group(child.s(), parent.s()))


# ---- binding -----------------------------------------------------------------------------------------------


def test_a_bound_app_gives_back_its_runner(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    runner = JobRunner(app, database=sqlite_url(tmp_path))
    assert JobRunner.of(app) is runner
    other = new_app(tmp_path)
    assert JobRunner.of(other) is JobRunner.of(other)


def test_binding_twice_prepares_tasks_once(jobs: JobRunner) -> None:
    jobs.prepare_tasks()
    again = JobRunner(jobs.app, database=str(jobs.database.url))
    again.prepare_tasks()
    task = jobs.app.tasks["add"]
    assert type(task).__mro__.count(workers.task.Task) == 1
    assert task(1, 2) == 3
    assert store(again, task.s(1, 2))
    again.database.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"backend": None}, "has no result backend"),
        ({"backend": "disabled://"}, "has no result backend"),
        ({"backend": "rpc://"}, "The result backend rpc://"),
        ({"backend": "redis://:se#cret@host/0"}, "'redis://:***@host/0', is no URL"),
        ({"backend": "redis:se/cret@host"}, "'redis:***@host', is no URL"),
        (
            {"backend": "nowhere://:secret@host"},
            "'nowhere://:***@host' of the Celery app 'shop' cannot be used (No module",
        ),
        ({"events": "theirs.events:Events"}, "events class of its own, 'theirs.events:Events'"),
    ],
)
def test_an_app_that_is_not_fit_for_jobs_is_refused_when_binding(
    tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    app = new_app(tmp_path, **options)
    with pytest.raises(ConfigurationError) as caught:
        JobRunner(app, database=sqlite_url(tmp_path))
    assert problem in caught.value.problem
    assert "'shop'" in caught.value.problem
    assert caught.value.remedy.endswith(".")
    assert caught.value.exit_code == 2
    assert not hasattr(app, "jobrunner")
    assert "cret" not in str(caught.value)


def test_a_result_backend_with_tls_says_which_parameter_it_lacks(tmp_path: Path) -> None:
    app = new_app(tmp_path, backend="rediss://:secret@host/0")
    with pytest.raises(ConfigurationError, match="ssl_cert_reqs=required") as caught:
        JobRunner(app, database=sqlite_url(tmp_path))
    assert "secret" not in str(caught.value)


def test_an_app_without_a_broker_gets_the_embedded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_HOME", str(tmp_path))
    monkeypatch.delenv("JOBRUNNER_BROKER", raising=False)
    jobs = JobRunner(Celery("bare", set_as_current=False))
    assert jobs.embedded
    assert jobs.app.conf.broker_url == jobs.app.conf.result_backend == broker.url(tmp_path)
    assert jobs.database.where == str(tmp_path / "jobrunner.db")


def test_an_app_without_a_broker_gets_that_of_the_settings_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_HOME", str(tmp_path))
    monkeypatch.setenv("JOBRUNNER_BROKER", "redis://broker.test/0")
    monkeypatch.setenv("JOBRUNNER_RESULT_BACKEND", "redis://backend.test/1")
    jobs = JobRunner(Celery("bare", set_as_current=False))
    assert not jobs.embedded
    assert jobs.app.conf.broker_url == "redis://broker.test/0"
    assert jobs.app.conf.result_backend == "redis://backend.test/1"


def test_what_the_user_set_is_not_overridden_and_is_told(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    app.conf.worker_send_task_events = False
    jobs = JobRunner(app, database=sqlite_url(tmp_path))
    assert app.conf.worker_send_task_events is False
    assert any("worker_send_task_events = False, as you set it" in line for line in jobs.changes())
    assert app.conf.broker_url == nobody(tmp_path)


def test_what_the_user_did_not_set_is_set_and_told(jobs: JobRunner) -> None:
    assert jobs.app.conf.worker_send_task_events is True
    assert "worker_send_task_events = True." in jobs.changes()


def test_a_database_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="gone with its process"):
        JobRunner(new_app(tmp_path), database="sqlite://")
    with pytest.raises(ConfigurationError, match="gone with its process"):
        Database("sqlite:///:memory:")


# ---- named jobs --------------------------------------------------------------------------------------------


def test_a_named_job_converts_its_parameters_and_names_every_problem_at_once(jobs: JobRunner) -> None:
    @jobs.job("nightly")
    def nightly(region: str, number: int = 1, sizes: list[int] | None = None, where: Path | None = None) -> Any:
        return anything(jobs, region, number, sizes, str(where))

    job = jobs.get(store(jobs, jobs.named["nightly"].canvas({"region": "7", "sizes": "[1, 2]", "where": "/tmp"})))  # noqa: S108
    (row,) = read_rows(jobs.database, "message")
    assert json.loads(row["body"])[0] == ["7", 1, [1, 2], "/tmp"]  # noqa: S108
    assert job.view.total == 1
    with pytest.raises(InvalidParametersError) as caught:
        jobs.submit_named("nightly", {"number": "many", "sizes": "[", "color": "red"})
    problem = caught.value.problem
    assert all(part in problem for part in ("color is unknown", "number='many'", "sizes='['", "region is missing"))
    assert "region: str, number: int = 1" in caught.value.remedy


def test_a_named_job_that_does_not_exist_is_told_with_those_that_do(jobs: JobRunner) -> None:
    jobs.job("nightly")(lambda: add(jobs, 1, 2))
    with pytest.raises(NotFoundError, match="There is no job named 'hourly'") as caught:
        jobs.submit_named("hourly", {})
    assert "nightly" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_json_is_what_the_registry_gives_without_a_setting(jobs: JobRunner) -> None:
    store(jobs, add(jobs, 1, 2))
    assert read_rows(jobs.database, "message")[0]["content_type"] == registry.name_to_type["json"]

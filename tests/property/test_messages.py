"""What is stored at submission is what Celery would send, whatever the tasks beside it are."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task, group
from celery.canvas import Signature
from celery.utils.saferepr import saferepr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Exchange, Producer, Queue
from kombu.exceptions import EncodeError, SerializerNotInstalled
from pydantic import BaseModel

from jobrunner import JobRunner, submit
from jobrunner.envelope import _represent
from jobrunner.errors import InvalidCanvasError
from tests.apps import new_app, sqlite_url

#: Name, arguments, keyword arguments, options.
Call = tuple[str, list[Any], dict[str, Any], dict[str, Any]]

ADDED_LATER = frozenset({"id", "root_id", "retries"})
SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Point(BaseModel):
    """A model as an argument."""

    x: int


def nothing(*args: Any, **kwargs: Any) -> None:
    """A task that takes anything."""


class Shadowed(Task):
    """Shows its arguments in its name."""

    abstract = True

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:  # noqa: ARG002  Celery calls it so
        return f"{self.name} of {args!r} and {sorted(kwargs)}"


def by_arguments(name: str, args: Any, kwargs: Any, *_: Any, **__: Any) -> Any:
    """Route by what no name tells."""
    return {"queue": f"q{len(args)}", "priority": len(kwargs)} if name == "fanned" else None


ROUTES: dict[str, Any] = {
    "none": None,
    "names": {"plain": {"queue": "named", "priority": 4}, "limited": "straight"},
    "globs": {"pla*": {"queue": "globbed", "routing_key": "k"}, "*": {"priority": 2}},
    "function": (by_arguments, {"limited": {"queue": "named"}}),
}


def make_app(folder: Path, routes: str) -> Celery:
    app = new_app(folder, broker="memory://", backend="cache+memory://")
    app.conf.update(
        task_routes=ROUTES[routes],
        task_queues=[
            Queue("celery"),
            Queue("ranked", queue_arguments={"x-max-priority": 9}),
            Queue("office", Exchange("office", type="topic"), routing_key="office.#"),
            Queue("brief", Exchange("brief", type="direct", delivery_mode=1), routing_key="brief"),
        ],
    )
    app.task(nothing, name="plain", shared=False, typing=False)
    app.task(nothing, name="fanned", shared=False, typing=False)
    app.task(nothing, name="shadowed", shared=False, base=Shadowed, typing=False)
    limited = {"time_limit": 60, "soft_time_limit": 50, "ignore_result": True, "serializer": "pickle"}
    app.task(nothing, name="limited", shared=False, typing=False, **limited)

    @app.task(name="modelled", shared=False, pydantic=True, typing=False)
    def modelled(x: Point, y: Any = None, z: Any = None, *, a: Any = None, b: Point | None = None) -> None: ...

    return app


@pytest.fixture(params=ROUTES)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    app = make_app(tmp_path, request.param)
    jobs = JobRunner(app, database=sqlite_url(tmp_path))
    jobs.prepare_tasks()
    yield app
    jobs.database.close()
    app.close()


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=9),
    st.sampled_from(["it's", 'a "b"', "a\\b", "a\nb", "é", "x" * 1021, "x" * 1500]),
    st.sampled_from([Point(x=3), Point(x=3), object()]),
    st.lists(st.integers(0, 3), max_size=400),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=3),
)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "shadow": st.sampled_from(["one", "two"]),
    "expires": st.sampled_from([datetime(2036, 1, 1, tzinfo=UTC), datetime(2037, 1, 1, tzinfo=UTC)]),
    "time_limit": st.just(60),
    "soft_time_limit": st.just(30.5),
    "priority": st.sampled_from([0, 5]),
    "queue": st.sampled_from(["celery", "ranked", "office", "brief", "made"]),
    "routing_key": st.sampled_from(["office.a", "office.b"]),
    "compression": st.sampled_from(["zlib", "gzip"]),
    "serializer": st.sampled_from(["json", "pickle", "yaml", "morse"]),
    "ignore_result": st.booleans(),
    "delivery_mode": st.sampled_from([1, 2]),
    "headers": st.sampled_from([{"tenant": "eu"}, {"argsrepr": "hidden"}, {"shadow": "three", "kwargsrepr": None}]),
    "argsrepr": st.sampled_from(["<secret>", ""]),
    "kwargsrepr": st.just("<secret>"),
    "retry": st.booleans(),
    "stamps": st.dictionaries(st.sampled_from(["tenant", "retry_policy"]), st.sampled_from("ab"), min_size=1),
}
options = st.lists(st.sampled_from(list(OPTIONS)), max_size=4, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({option: OPTIONS[option] for option in chosen})
)
names = st.sampled_from(["plain", "fanned", "shadowed", "limited", "modelled"])


#: Options that are easily taken for each other.
twins = st.sampled_from(
    [
        ({}, {}),
        ({"priority": 1}, {"priority": True}),
        ({"time_limit": 60}, {"time_limit": 60.0}),
        ({"soft_time_limit": 0.0}, {"soft_time_limit": -0.0}),
        ({"headers": {"tenant": 1}}, {"headers": {"tenant": True}}),
        ({"stamps": {"retry_policy": "a"}}, {"stamps": {"retry_policy": "b"}}),
        ({"queue": "office"}, {"queue": "ranked"}),
    ]
)


@st.composite
def calls(draw: st.DrawFn) -> list[Call]:
    """Some calls of one task with nearly the same options."""
    name, chosen, pair = draw(names), draw(options), draw(twins)
    arguments = st.tuples(st.lists(values, max_size=3), st.dictionaries(st.sampled_from("ab"), values))
    return [(name, *draw(arguments), chosen | draw(st.sampled_from(pair))) for _ in range(draw(st.integers(2, 5)))]


def signature_of(app: Celery, call: Call) -> Signature:
    name, args, kwargs, given_options = call
    plain = {option: value for option, value in given_options.items() if option != "stamps"}
    signature = app.tasks[name].signature(args, kwargs, **plain)
    if stamps := given_options.get("stamps"):
        signature.options |= {**stamps, "stamped_headers": sorted(stamps)}
    return signature


class Recorder(Producer):
    """A producer of kombu's that keeps what would go over the wire."""

    def _publish(self, body: Any, priority: Any, *rest: Any, **_: Any) -> None:
        content_type, content_encoding, headers, properties, routing_key, _, _, exchange, *_ = rest
        priority = 0 if priority is None else priority  # brokers take them for the same
        self.sent = {
            "body": body.encode() if isinstance(body, str) else body,
            "type": (content_type, content_encoding),
            "headers": json.dumps({k: v for k, v in headers.items() if k not in ADDED_LATER}, sort_keys=True),
            "properties": json.dumps([priority, properties["delivery_mode"], routing_key, exchange]),
        }


def sent_by_celery(signature: Signature, recorder: Recorder) -> dict[str, Any] | None:
    try:
        signature.apply_async(producer=recorder)
    except (EncodeError, SerializerNotInstalled):
        return None
    return recorder.sent


def sent_by_us(row: dict[str, Any], recorder: Recorder) -> dict[str, Any]:
    content = {name: row[name] for name in ("content_type", "content_encoding")}
    recorder.publish(row["body"], headers=json.loads(row["headers"]), **content, **json.loads(row["properties"]))
    return recorder.sent


@SETTINGS
@given(calls())
def test_each_message_of_a_job_is_the_one_that_celery_sends(app: Celery, called: list[Call]) -> None:
    with app.connection_for_write() as connection:
        recorder = Recorder(connection)
        signatures = [signature_of(app, call) for call in called]
        theirs = [sent_by_celery(signature.clone(), recorder) for signature in signatures]
        good = [signature for signature, sent in zip(signatures, theirs, strict=True) if sent]
        if len(good) < len(signatures):
            with pytest.raises(InvalidCanvasError):
                submit.prepare(app, group(signatures, app=app), name=None, key=None)
        rows = submit.prepare(app, group(good, app=app), name=None, key=None).message_rows()
        ours = [sent_by_us(row, recorder) for row in rows]
    assert ours == [sent for sent in theirs if sent]


@settings(max_examples=1_000, deadline=None)
@given(st.one_of(st.lists(values), st.lists(values).map(tuple), st.dictionaries(st.text(), values)), st.integers(0, 40))
def test_arguments_are_shown_as_celery_shows_them(arguments: Any, maxlen: int) -> None:
    assert _represent(arguments, maxlen=maxlen, maxlevels=3) == saferepr(arguments, maxlen, 3)

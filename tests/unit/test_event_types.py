"""The catalogue of events: nothing that Celery or we send is missing from it, and it says what the code does."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobrunner.event_types import ACTIVE_EVENTS, COMMON, EVENT_TYPES, INACTIVE_EVENTS, EventType, Field, event_named
from jobrunner.events_page import page
from jobrunner.store.schema import metadata
from tests.builders import attempt, event, task
from tracker.fold import FOLDED, deciding, fold, state_after

ROOT = Path(__file__).parents[2]
#: Where Celery's workers and clients send events from.
SENDERS = ("celery.worker", "celery.app", "celery.events")
TYPE = re.compile(r"(task|worker)-[a-z]+(-[a-z]+)*")


def types_named_in(folder: Path) -> Iterator[str]:
    """Return every text in these sources that is written like the type of an event."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and TYPE.fullmatch(node.value):
                yield node.value


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


fields = [(one.name, field) for one in EVENT_TYPES.values() for field in one.fields]
fields += [("every event", field) for field in COMMON]


def test_every_event_that_celery_can_send_is_in_it_and_besides_only_ours() -> None:
    theirs = {type_ for package in SENDERS for type_ in types_named_in(folder_of(package))}
    assert set(EVENT_TYPES) - theirs == {
        *("task-added", "task-held", "task-logged", "task-progress", "task-stated"),
        "snapshot-applied",
    }
    assert theirs <= set(EVENT_TYPES)


@pytest.mark.parametrize("package", ["workers", "tracker", "jobrunner/store", "jobrunner/cli"])
def test_every_event_that_we_name_is_in_it(package: str) -> None:
    assert set(types_named_in(ROOT / package)) <= set(EVENT_TYPES)


def test_it_says_of_which_events_the_tracker_keeps_attempts() -> None:
    assert {name for name, one in EVENT_TYPES.items() if one.folded} == set(FOLDED)


@pytest.mark.parametrize("type_", FOLDED)
def test_it_says_what_an_event_makes_of_a_queued_task(type_: str) -> None:
    folded = fold(attempt(), event(type_.removeprefix("task-"), fields={"requeue": True, "progress": 0.5}))
    decider = deciding([folded])
    state = state_after(task(), decider) if decider else "queued"
    effect = EVENT_TYPES[type_].effect
    assert f"`{state}`" in effect or (state == "queued" and effect.startswith("none"))


@pytest.mark.parametrize(("type_", "field"), fields, ids=lambda one: one.name if isinstance(one, Field) else one)
def test_every_field_is_kept_in_a_column_or_it_is_told_why_not(type_: str, field: Field) -> None:
    assert field.kept or field.note, type_
    for place in field.kept:
        found = re.fullmatch(r"(\w+)\.(\w+)(\[\w+\])?", place)
        assert found, place
        assert found[2] in metadata.tables[found[1]].columns


@pytest.mark.parametrize("one", EVENT_TYPES.values(), ids=list(EVENT_TYPES))
def test_what_a_line_shows_of_an_event_is_a_field_of_it(one: EventType) -> None:
    names = [name for field in one.fields for name in field.name.split(", ")]
    assert len(names) == len(set(names))
    assert set(one.told) <= set(names)


def test_the_page_in_docs_is_the_generated_one() -> None:
    remedy = "run: python -m jobrunner.events_page > docs/events.md"
    assert (ROOT / "docs" / "events.md").read_text(encoding="utf-8") == page(), remedy


@pytest.mark.parametrize("word", ACTIVE_EVENTS + INACTIVE_EVENTS)
def test_an_event_is_found_with_and_without_the_word_task(word: str) -> None:
    assert event_named(word) == event_named(f"task-{word}") == f"task-{word}"


@pytest.mark.parametrize("word", ["retired", "task-retired"])
def test_retired_is_retried(word: str) -> None:
    assert event_named(word) == "task-retried"


@pytest.mark.parametrize("word", ["", "online", "worker-online", "rejected", "task-", "Sent"])
def test_no_other_event_can_be_the_last_one_of_a_task(word: str) -> None:
    assert event_named(word) is None

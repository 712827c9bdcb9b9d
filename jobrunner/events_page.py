"""Writes `docs/events.md` from the event types.

Run as `python -m jobrunner.events_page > docs/events.md`; a test compares the file with `page()`.
"""

import sys
from collections.abc import Iterator

from jobrunner.event_types import ACTIVE_EVENTS, COMMON, EVENT_TYPES, INACTIVE_EVENTS, Field
from jobrunner.markdown import code, codes, table

_INTRO = """\
<!-- Written by `python -m jobrunner.events_page`. Change jobrunner/event_types.py instead. -->

# Events

What workers and the tracker tell, event by event. All are Celery's own, with its names and its fields; jobrunner adds
`root_id`, the job, and `retries`, Celery's count, where Celery leaves them out. `jobrunner events` prints them as they
come, and every monitor of Celery sees the same.

An event may come late, twice, or before the one that it follows: the tracker does not mind, and how it decides is told
in [How it works](internals.md). An event of any other type, such as those that a task sends with `send_event`, is for
monitors and changes nothing. Flower shows the state `PROGRESS` after `task-progress`. What each state of a job and of a
task means is told in [States](states.md).
"""

_ACTIVITY = f"""\
A task is *active*, with more to come, while its last event is one of {codes(ACTIVE_EVENTS)}.
It is *inactive* after {codes(INACTIVE_EVENTS)} (H4), and whenever it has ended.
`jobrunner tasks JOB` tells them apart with `--active` and `--inactive`; `--event NAME` shows those whose last event has
this name, and takes `retired` for `retried`.
"""

_FIELDS = """\
## Fields

Where each field is kept, as `table.column`; in brackets, a key of the JSON in that column. Fields marked H3 are those
of the requirements.
"""


def page() -> str:
    """Return the whole page."""
    head = ("event", "sent by", "when", "what it does to a task")
    kinds = [(code(one.name), one.sent_by, one.when, one.effect) for one in EVENT_TYPES.values()]
    return "\n".join([_INTRO, table(head, kinds), _ACTIVITY, _FIELDS, *_tables()])


def _tables() -> Iterator[str]:
    yield "### Every event\n"
    yield _fields(COMMON)
    for one in EVENT_TYPES.values():
        yield f"### {code(one.name)}\n"
        yield _fields(one.fields)


def _fields(fields: tuple[Field, ...]) -> str:
    rows = ((codes(one.name.split(", ")), "H3" if one.h3 else "", codes(one.kept), one.note) for one in fields)
    return table(("field", "", "kept in", "note"), rows)


if __name__ == "__main__":
    sys.stdout.write(page())

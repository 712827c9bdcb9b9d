"""The command `logs`; what tasks have logged was told to a tracker in memory."""

import json

import pytest
from celery import group

from jobrunner import JobRunner
from jobrunner.log_lines import write_line
from tests.apps import store, take_turn
from tests.builders import MIDNIGHT, event
from tests.commands import Run


@pytest.fixture
def tasks(jobs: JobRunner) -> list[str]:
    """Two tasks: the first was tried twice, and has failed; the second was not sent yet."""
    job_id = store(jobs, group(jobs.app.tasks["add"].si(1, 2) for _ in range(2)))
    take_turn(jobs)
    first, second = (task.id for task in jobs.get(job_id).tasks())
    for retries, end in enumerate(["retried", "failed"]):
        told = {"uuid": first, "retries": retries}
        text = write_line(MIDNIGHT.timestamp() + retries, "INFO", f"try\x1b[31m {retries + 1}\x07")
        take_turn(
            jobs,
            event("started", at=retries, **told),
            event("logged", fields={"number": 0, "text": text}, **told),
            event(end, at=retries + 0.5, **told),
        )
    return [first, second]


def line(attempt: int) -> str:
    at = MIDNIGHT.replace(second=attempt - 1).astimezone().isoformat(sep=" ", timespec="milliseconds")
    return f"{at}  INFO      try {attempt}\N{REPLACEMENT CHARACTER}\n"


def test_what_the_last_attempt_has_logged_is_printed_as_a_terminal_may_have_it(tasks: list[str], run: Run) -> None:
    ended = run("logs", tasks[0])
    assert (ended.code, ended.out) == (0, line(2))
    assert ended.err == "attempt 2, delivery 1, w1@host:\n"
    assert run("logs", tasks[0][-12:]).out == line(2)


def test_an_attempt_is_chosen_by_its_number(tasks: list[str], run: Run) -> None:
    assert run("logs", tasks[0], "--attempt", "1").out == line(1)
    assert run("logs", tasks[0], "--attempt", "1", "--follow").out == line(1)
    for follow in ([], ["--follow"]):
        ended = run("logs", tasks[0], "--attempt", "2", "--delivery", "2", *follow)
        assert ended.code == 3
        assert "has no such attempt.\n\nhint: See `jobrunner tasks --attempts " in ended.err


def test_programs_get_every_line_with_its_attempt(tasks: list[str], run: Run) -> None:
    known = {"attempt": 2, "delivery": 1, "worker": "w1@host", "level": "INFO", "text": "try\x1b[31m 2\x07"}
    expected = known | {"at": MIDNIGHT.replace(second=1).isoformat()}
    assert run("logs", tasks[0], "--json").json == [expected]
    assert json.loads(run("logs", tasks[0], "--json", "--follow").out) == expected


def test_of_a_task_that_has_logged_nothing_it_says_so(tasks: list[str], run: Run) -> None:
    ended = run("logs", tasks[1])
    assert (ended.code, ended.out, ended.err) == (0, "", "Nothing was logged.\n")
    assert run("logs", tasks[1], "--json").json == []


def test_what_names_no_task_or_several_is_refused(tasks: list[str], run: Run) -> None:
    assert run("logs", "nothing").code == 3
    several = run("logs", tasks[0][:8])
    assert (several.code, "Several tasks match" in several.err) == (2, True)

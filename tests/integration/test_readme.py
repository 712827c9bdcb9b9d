"""Every command of the README is run, and what it prints is compared: ids, times and paths apart."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

#: What differs from run to run, and what stands for it; first come, first served.
MASKS = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", "TIME"),
    (r"/\S*/(?=up\.log|broker\.sock|jobrunner\.db)", "FOLDER/"),
    (r"\((valkey|redis)-server", "(SERVER"),
    (r"\b\d+(\.\d+)? (s|min)( \d+ s)?\b", "DURATION"),
    (r"\b\d{1,3}(,\d{3})+\b|\b\d{2,}\b|(?<=  )\d+(?=  |$)", "N"),  # figures of the library at hand
    (r" +", " "),
]


def masked(line: str) -> str:
    for pattern, instead in MASKS:
        line = re.sub(pattern, instead, line)
    return line.strip()


@dataclass
class Command:
    text: str
    output: list[str] = field(default_factory=list)

    @property
    def in_background(self) -> bool:
        return self.text.endswith(" &")


def commands() -> Iterator[Command]:
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        command = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command
                command = Command(line[2:])
            elif line.startswith("> "):
                command.text += "\n" + line[2:]
            else:
                command.output.append(line)
        yield command


def assert_shown(expected: list[str], printed: str) -> None:
    """Each expected line is there, in order; between them nothing else, except where the README says "…"."""
    rest, free = [masked(line) for line in printed.splitlines()], False
    for line in expected:
        if line == "…":
            free = True
            continue
        wanted = masked(line)
        assert wanted in rest[: None if free else 1], f"{wanted!r} is not in\n{printed}"
        del rest[: rest.index(wanted) + 1]
        free = False
    assert free or not rest, f"not in the README: {rest}"


def test_the_first_command_stands_before_line_45() -> None:
    lines = README.splitlines()
    assert next(number for number, line in enumerate(lines, 1) if line.startswith("$ ")) < 45


def test_the_example_is_the_whole_file() -> None:
    assert (ROOT / "examples" / "nightly.py").read_text() in README


def python_tests(page: str) -> list[str]:
    return [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def test_" in block]


@pytest.mark.parametrize("page", ["README.md", "docs/testing.md"])
def test_the_tests_that_we_show_pass_in_milliseconds(page: str) -> None:
    blocks = python_tests((ROOT / page).read_text())
    assert blocks
    for block in blocks:
        shown: dict[str, Any] = {}
        exec(block, shown)  # noqa: S102  our own page
        for name in [name for name in shown if name.startswith("test_")]:
            began = time.perf_counter()
            shown[name]()
            assert time.perf_counter() - began < 0.5


@pytest.mark.timeout(300)
def test_every_command_prints_what_the_readme_shows(tmp_path: Path) -> None:
    environment = {**os.environ, "JOBRUNNER_HOME": str(tmp_path / ".jobrunner"), "TZ": "UTC"}
    background = []
    try:
        for command in commands():
            if command.in_background:
                log = tmp_path / f"background-{len(background)}.log"
                background.append(start(command, environment, log))
                await_output(command, log)
            else:
                done = subprocess.run(
                    ["bash", "-c", command.text],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{command.text}\n{done.stdout}"
                assert_shown(command.output, done.stdout)
    finally:
        for process in background:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def await_output(command: Command, log: Path) -> None:
    until(lambda: len(log.read_text().splitlines()) >= len(command.output), timeout=60, what=command.text)
    assert_shown(command.output, log.read_text())


def start(command: Command, environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    argv = ["bash", "-c", "exec " + command.text.removesuffix(" &")]
    with log.open("wb") as output:
        return subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def test_the_targets_that_the_readme_names_exist() -> None:
    """`make test` runs this very test, so it is only asked what it would do."""
    for target in re.findall(r"`make (\w+)`", README):
        plan = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert plan.returncode == 0, f"make {target}: {plan.stderr}"
        assert "pytest" in plan.stdout or target != "test"


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target

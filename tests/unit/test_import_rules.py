"""The import rules are checked, and would be found broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in ("jobrunner", "workers", "tracker"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> "subprocess.CompletedProcess[str]":
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_the_tree_keeps_its_rules(tree: Path) -> None:
    assert lint(tree).returncode == 0


@pytest.mark.parametrize(
    ("module", "violation"),
    [
        ("workers/task.py", "from tracker import fold"),
        ("tracker/loop.py", "from workers import task"),
        ("jobrunner/submit.py", "from tracker import loop"),
        ("jobrunner/testing/course.py", "from tracker import loop"),
        ("tracker/fold.py", "import sqlalchemy"),
        ("jobrunner/plan.py", "import time"),
        ("jobrunner/cli/jobs.py", "import sqlalchemy"),
    ],
)
def test_a_planted_violation_is_found(tree: Path, module: str, violation: str) -> None:
    with (tree / module).open("a") as source:
        source.write(f"\n{violation}\n")
    done = lint(tree)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def test_make_check_asks_for_the_rules() -> None:
    plan = subprocess.run(["make", "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "lint-imports" in plan.stdout

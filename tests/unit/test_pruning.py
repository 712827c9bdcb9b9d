"""Pruning of work directories: by age and size, never what is in use, and nothing but work directories."""

import os
import time
from pathlib import Path

import pytest

from workers.pruning import prune, prune_now_and_then
from workers.work_directory import Attempt, WorkDirectory, work_directory

NO_LIMIT = 1 << 40


def leave(root: Path, name: str, *, hours: float, size: int = 0) -> Path:
    """Make a work directory of an own task, in use until so many hours ago, with a file of this size."""
    with work_directory(root, Attempt("job", name, "1.0")) as directory:
        (directory.path / "file").write_bytes(b"x" * size)
    age(directory, hours)
    return directory.path


def age(directory: WorkDirectory, hours: float) -> None:
    then = time.time() - hours * 3_600
    os.utime(directory.ours("lock"), (then, then))


def test_what_is_too_old_is_deleted_with_the_empty_folders_around_it(tmp_path: Path) -> None:
    old, new = (leave(tmp_path, name, hours=hours) for name, hours in (("old", 3), ("new", 1)))
    prune(tmp_path, oldest=time.time() - 2 * 3_600, limit=NO_LIMIT)
    assert (old.parent.exists(), new.exists()) == (False, True)
    prune(tmp_path, oldest=time.time(), limit=NO_LIMIT)
    assert list(tmp_path.iterdir()) == []


def test_beyond_a_size_the_oldest_are_deleted(tmp_path: Path) -> None:
    paths = [leave(tmp_path, f"{hours}", hours=hours, size=1_000_000) for hours in (4, 1, 3, 2)]
    prune(tmp_path, oldest=0.0, limit=2_500_000)
    assert [path.exists() for path in paths] == [False, True, False, True]


def test_what_is_in_use_is_never_deleted(tmp_path: Path) -> None:
    with work_directory(tmp_path, Attempt("job", "task", "1.0")) as directory:
        age(directory, hours=100)
        prune(tmp_path, oldest=time.time(), limit=0)
        assert directory.path.exists()
    age(directory, hours=100)
    prune(tmp_path, oldest=time.time(), limit=0)
    assert not directory.path.exists()


def test_what_may_be_in_the_making_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "day/job/task/1.0").mkdir(parents=True)
    prune(tmp_path, oldest=time.time() + 1, limit=0)
    assert (tmp_path / "day/job/task/1.0").exists()


def test_nothing_is_deleted_that_a_link_leads_to(tmp_path: Path) -> None:
    outside = leave(tmp_path / "outside", "task", hours=100)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/day").symlink_to(outside.parents[2])
    inside = leave(tmp_path / "root", "task", hours=100)
    (inside / "link").symlink_to(outside)
    prune(tmp_path / "root", oldest=time.time(), limit=0)
    assert (outside.exists(), inside.exists()) == (True, False)


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_folders_that_a_command_has_closed_are_deleted_and_hold_up_nothing(tmp_path: Path, mode: int) -> None:
    path = leave(tmp_path, "task", hours=100)
    (path / "a/b").mkdir(parents=True)
    (path / "a/b/c").write_text("")
    for folder in ("a/b", "a", ".command", ""):
        (path / folder).chmod(mode)
    os.utime(path, (0, 0))
    other = leave(tmp_path, "other", hours=100)
    prune(tmp_path, oldest=time.time(), limit=NO_LIMIT)
    assert (path.exists(), other.exists()) == (False, False)


def test_it_is_done_now_and_then_whoever_has_a_command_to_run(tmp_path: Path) -> None:
    first = leave(tmp_path, "first", hours=100)
    prune_now_and_then(tmp_path, days=1, limit=NO_LIMIT)
    second = leave(tmp_path, "second", hours=100)
    prune_now_and_then(tmp_path, days=1, limit=NO_LIMIT)
    assert (first.exists(), second.exists()) == (False, True)
    for hours in (-1, 1):  # the clock may have been put back, by more than an hour
        third = leave(tmp_path, "third", hours=100)
        told = time.time() + hours * 3_600
        os.utime(tmp_path / ".pruned", (told, told))
        prune_now_and_then(tmp_path, days=1, limit=NO_LIMIT)
        assert (second.exists(), third.exists()) == (False, False)


def test_a_root_that_is_not_there_yet_needs_no_pruning(tmp_path: Path) -> None:
    prune_now_and_then(tmp_path / "work", days=1, limit=0)
    assert not (tmp_path / "work").exists()

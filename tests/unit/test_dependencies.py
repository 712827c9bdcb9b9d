"""What is installed with jobrunner, apart from what development brings along."""

import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_what_the_redis_transport_needs_is_installed_with_us() -> None:
    """Kombu names it in its extra `redis` alone, and pytest happens to bring it: only a plain installation lacks it."""
    ours = {Requirement(line).name for line in PROJECT["dependencies"]}
    conditional = [one for one in map(Requirement, requires("kombu") or []) if one.marker]
    needed = {one.name for one in conditional if one.marker and one.marker.evaluate({"extra": "redis"})}
    assert "redis" in needed
    assert needed - ours == set()

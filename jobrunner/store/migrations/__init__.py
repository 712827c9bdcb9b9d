"""Alembic migrations, run by `jobrunner db upgrade`."""

from pathlib import Path
from typing import Final

#: The newest migration. Versions are numbers as text, so that newer and older can be told apart.
HEAD: Final = "0013"

FOLDER: Final = Path(__file__).parent

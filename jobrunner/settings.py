"""What can be set from outside, and where it stands when nothing is set.

Read when asked for, never at import: `Settings.from_environment()`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one process. URLs are Celery's and SQLAlchemy's own; `None` means nothing was set."""

    #: Folder of everything that jobrunner keeps on this machine: database, embedded broker, logs.
    home: Path = Path(".jobrunner")
    #: SQLAlchemy URL of the database.
    database: str | None = None
    #: URLs of broker and result backend, for an app that has none of its own and for a tracker without an app.
    broker: str | None = None
    result_backend: str | None = None
    #: Module of the Celery app, as Celery's `-A`.
    app: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read `JOBRUNNER_HOME`, `_DATABASE`, `_BROKER`, `_RESULT_BACKEND` and `_APP`."""
        return cls(
            home=Path(environment.get("JOBRUNNER_HOME") or ".jobrunner").absolute(),
            database=environment.get("JOBRUNNER_DATABASE") or None,
            broker=environment.get("JOBRUNNER_BROKER") or None,
            result_backend=environment.get("JOBRUNNER_RESULT_BACKEND") or None,
            app=environment.get("JOBRUNNER_APP") or None,
        )

    @property
    def database_url(self) -> str:
        """The database: as set, else a SQLite file in `home`."""
        return self.database or f"sqlite:///{self.home / 'jobrunner.db'}"

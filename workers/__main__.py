"""Run a Celery worker whose app is bound to jobrunner: `python -m workers -A MODULE [celery worker options]`.

`celery -A MODULE worker` does the same for an app that binds itself with `JobRunner(app)`.
"""

import sys
from pathlib import Path

from celery import maybe_patch_concurrency


def main(argv: list[str]) -> None:
    """Bind the app if it is not bound, and run Celery's own worker command."""
    maybe_patch_concurrency(["celery", "worker", *argv])  # gevent must come before all that it patches
    from celery.app.utils import find_app  # noqa: PLC0415

    from jobrunner import JobRunner  # noqa: PLC0415

    if "-A" not in argv[:-1]:
        sys.exit("Usage: python -m workers -A MODULE [celery worker options]")
    place = argv.index("-A")
    if (
        str(Path.cwd()) not in sys.path
    ):  # `jobrunner` starts us without it, so that no folder `workers` of the user's is us
        sys.path.insert(0, str(Path.cwd()))
    app = find_app(argv[place + 1])
    JobRunner.of(app)
    app.worker_main(["worker", *argv[:place], *argv[place + 2 :]])


if __name__ == "__main__":
    main(sys.argv[1:])

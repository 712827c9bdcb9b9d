"""Run a Celery worker whose app is bound to jobrunner: `python -m workers -A MODULE [celery worker options]`.

`celery -A MODULE worker` does the same for an app that binds itself with `JobRunner(app)`.
"""

import sys

from celery.app.utils import find_app

from jobrunner import JobRunner


def main(argv: list[str]) -> None:
    """Bind the app if it is not bound, and run Celery's own worker command."""
    module, options = argv[argv.index("-A") + 1], argv[argv.index("-A") + 2 :]
    app = find_app(module)
    JobRunner.of(app)
    app.worker_main(["worker", *options])


if __name__ == "__main__":
    main(sys.argv)

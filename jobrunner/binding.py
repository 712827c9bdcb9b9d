"""What binding durable jobs does to a Celery app: its configuration, its events, and the classes of its tasks."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery, signals
from celery.utils.imports import symbol_by_name

from jobrunner import commands
from jobrunner.embedded import broker
from jobrunner.errors import ConfigurationError
from jobrunner.servers import check_broker
from jobrunner.settings import Settings

logger = logging.getLogger(__name__)

#: What durable jobs want of an app's configuration, and what happens without it. Set below the user's own values:
#: whoever has set one keeps it.
WANTED: Final[Mapping[str, tuple[Any, str]]] = {
    "worker_send_task_events": (True, "Flower and other monitors see no tasks"),
    "result_backend_always_retry": (True, "a task fails if the result backend is away when it ends"),
}

#: The classes that worker processes use, by path, as Celery names its own: `jobrunner` never imports `workers`.
_TASK = "workers.task:Task"
_REQUEST = "workers.request:Request"
_EVENTS = "workers.events:Events"
_STEPS = ("workers.step:Telling", "workers.step:Gating")
_STOCK_EVENTS = "celery.app.events:Events"


def configure(app: Celery, settings: Settings) -> bool:
    """Give an app what its configuration lacks, and return whether its broker is the one that `jobrunner up` starts."""
    conf = app.conf
    embedded = not (conf.broker_url or settings.broker)
    if not conf.broker_url:
        conf.broker_url = settings.broker or broker.url(settings.home)
        conf.result_backend = conf.result_backend or settings.result_backend or conf.broker_url
    elif not conf.result_backend and settings.result_backend:
        conf.result_backend = settings.result_backend
    app.add_defaults({setting: wanted for setting, (wanted, _) in WANTED.items()})
    return embedded


def set_classes(app: Celery) -> None:
    """Put our dispatcher of events, our steps of the worker and our classes of tasks into an app.

    Raises:
        ConfigurationError: it has an events class of its own.
    """
    if app.events_cls not in {_STOCK_EVENTS, _EVENTS}:
        msg = f"The Celery app {app.main!r} has an events class of its own, {app.events_cls!r}."
        raise ConfigurationError(msg, "Remove it: jobrunner's dispatcher also serves every other monitor.")
    app.events_cls = _EVENTS
    app.steps["consumer"].update(_STEPS)
    app.__dict__.pop("events", None)  # made already, if somebody has looked at app.events
    if app.finalized:
        prepare_tasks(app)
    _follow(app)


def prepare_tasks(app: Celery) -> None:
    """Mix our classes into every registered task, also into those that came after the app was finalized."""
    commands.register(app)
    base, request = symbol_by_name(_TASK), symbol_by_name(_REQUEST)
    for task in app.tasks.values():
        kind = type(task)
        if not issubclass(kind, base):
            own = symbol_by_name(kind.Request)
            # A class of the task's own, in front of the user's, which stays as it is: others may inherit from it.
            task.__class__ = type(
                kind.__name__,
                (base, kind),
                {
                    "Request": request if issubclass(request, own) else type("Request", (request, own), {}),
                    "__module__": kind.__module__,
                    "__doc__": kind.__doc__,
                },
            )


def changes(app: Celery) -> list[str]:
    """Say in sentences what binding did to an app, and where the user's own setting stands against it."""
    lines = [
        f"{len(app.tasks)} tasks are prepared: events carry the job, values come from the result backend.",
        "events go to the event log as well as to monitors; so does `task-sent` of what tasks of jobs send.",
    ]
    for setting, (wanted, otherwise) in WANTED.items():
        found = app.conf[setting]
        lines.append(f"{setting} = {found}" + ("." if found == wanted else f", as you set it: {otherwise}."))
    return lines


def _follow(app: Celery) -> None:
    """Prepare the tasks again where Celery has registered more: when the app is finalized, and as a worker starts."""

    def finalized(**_: Any) -> None:
        prepare_tasks(app)

    def worker_is_set_up(sender: str, instance: Any, **_: Any) -> None:
        if instance.app is app:
            check_broker(app)
            prepare_tasks(app)
            app.events.follow_sent(sender)  # before the pool forks, so that its processes speak as this worker
            for line in changes(app):
                logger.warning("jobrunner: %s", line)

    app.on_after_finalize.connect(finalized, weak=False)
    signals.celeryd_after_setup.connect(worker_is_set_up, weak=False)

"""The command that tells what is set, where, and what comes of it."""

import click
from celery import Celery

from jobrunner.cli import output
from jobrunner.cli.context import app_option, json_option, load_runner
from jobrunner.embedded import broker
from jobrunner.errors import ConfigurationError
from jobrunner.masking import mask_url
from jobrunner.servers import broker_of
from jobrunner.settings import OPTIONS, Settings
from jobrunner.store.database import Database

_APP = "the app"

#: By name: a value without passwords, None for what nobody has set; and its origin.
_Origins = dict[str, tuple[str | None, str]]


@click.command(short_help="Show the settings and where they come from.")
@app_option
@json_option
def config(module: str | None, as_json: bool) -> None:
    """Show every setting with its origin, and what is used in the end. Passwords are masked.

    An app that is named may have a broker and a result backend of its own, and these are used.
    """
    settings = Settings.read()
    given: _Origins = {name: (settings.shown(name), settings.origin(name)) for name in OPTIONS}
    used = _used(settings, module)
    if as_json:
        described = {name: one | {"about": OPTIONS[name].about} for name, one in _named(given).items()}
        output.print_json({"settings": described, "used": _named(used)})
        return
    output.console().print(output.origins_table("SETTING", given))
    click.echo()
    output.console().print(output.origins_table("USED", used))


def _named(origins: _Origins) -> dict[str, dict[str, str | None]]:
    return {name: {"value": value, "origin": origin} for name, (value, origin) in origins.items()}


def _used(settings: Settings, module: str | None) -> _Origins:
    if module is None:
        return _database(settings, None) | _servers(settings, None)
    runner = load_runner(module)
    runner.database.close()
    app = (module, settings.origin("app") if module == settings.app else "-A")
    return {"app": app, **_database(settings, runner.database.where), **_servers(settings, runner.app)}


def _database(settings: Settings, of_app: str | None) -> _Origins:
    place = _place(settings.database_url)
    if of_app is not None and of_app != place:
        return {"database": (of_app, _APP)}
    return {"database": (place, settings.origin("database"))}


def _place(url: str) -> str:
    """Return where a database is; what is no URL as it is, because this command is to show what is wrong."""
    try:
        database = Database(url)
    except ConfigurationError:
        return mask_url(url)
    database.close()
    return database.where


def _servers(settings: Settings, app: Celery | None) -> _Origins:
    """Return the broker and the result backend of an app, or of a tracker without one."""
    url = settings.broker or broker.url(settings.home)
    alone = {"broker": url, "result_backend": settings.result_backend or url}
    used = alone if app is None else {"broker": broker_of(app), "result_backend": str(app.conf.result_backend)}
    return {
        name: (mask_url(value), settings.origin(name) if value == alone[name] else _APP) for name, value in used.items()
    }

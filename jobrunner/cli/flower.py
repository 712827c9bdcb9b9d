"""The command `flower`: Flower for the broker that the tracker uses, on loopback unless told otherwise.

Flower runs in this very process, so that URLs with passwords are handed over in memory and no list of processes shows
them.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click
from celery import Celery

from jobrunner.cli.context import app_option
from jobrunner.cli.services import tracker_app
from jobrunner.errors import ConfigurationError
from jobrunner.masking import mask_url
from jobrunner.servers import broker_of, transport_of

_INTERRUPTED = 130

#: Where Flower's own defaults do not serve; `FLOWER_…` variables, `flowerconfig.py` and options come before these.
DEFAULTS: Mapping[str, Any] = {
    "address": "127.0.0.1",  # its own is every interface of the machine
    "natural_time": True,
    "tasks_columns": "name,uuid,state,args,result,received,started,runtime,retries,worker",
}


def _once(_context: click.Context, _parameter: click.Parameter, values: tuple[Any, ...]) -> Any:
    if len(values) > 1:
        msg = f"given {len(values)} times."
        raise click.BadParameter(msg)
    return values[0] if values else None


@click.command(short_help="Run Flower.", context_settings={"ignore_unknown_options": True})
@app_option
@click.option(
    "-b",
    "--broker",
    "broker_url",
    metavar="URL",
    help="The broker; else that of the app, or JOBRUNNER_BROKER, which hides a password from `ps`.",
)
@click.option("--result-backend", metavar="URL", help="The result backend; by default the broker.")
@click.option(
    "--port", type=click.IntRange(0, 65535), multiple=True, callback=_once, help="Port to listen on.  [default: 5555]"
)
@click.option("--address", multiple=True, callback=_once, help="Address to listen on.  [default: 127.0.0.1]")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def flower(
    *,
    module: str | None,
    broker_url: str | None,
    result_backend: str | None,
    port: int | None,
    address: str | None,
    options: Sequence[str],
) -> None:
    """Run Flower, which shows workers and tasks in a browser, until Ctrl-C.

    OPTIONS are those of Flower, written --name=value. It needs no user code: with -A it takes broker and result backend
    from the app's configuration. Who can open its pages can stop workers and read arguments and results: see Flower's
    --basic_auth before you give it an address that others reach.
    """
    _require_flower()
    app, _ = tracker_app(module, broker_url, result_backend)
    transport_of(app)
    listening = [f"--{name}={value}" for name, value in (("port", port), ("address", address)) if value is not None]
    _configure([*listening, *options])
    _serve(app)


def _require_flower() -> None:
    try:
        import flower.command  # noqa: F401, PLC0415  an extra, which most installations lack
    except ModuleNotFoundError as error:
        msg = f"Flower is not installed ({error})."
        raise ConfigurationError(msg, "Install it: pip install jobrunner[flower].") from None


def _configure(given: Sequence[str]) -> None:
    """Put together Flower's options from our defaults, the environment, its configuration file and `given`."""
    from flower import command  # noqa: PLC0415
    from tornado.options import Error, options  # noqa: PLC0415

    for one in given:  # Flower itself passes over what it does not know
        if not one.startswith("--") or one.lstrip("-").partition("=")[0] not in options:
            msg = f"Flower has no option {one!r}. Its options are written --name=value; see `celery flower --help`."
            raise click.UsageError(msg)
    for name, value in DEFAULTS.items():
        setattr(options, name, value)
    try:
        command.apply_env_options()
        command.apply_options("jobrunner flower", given)
    except (Error, ValueError, FileNotFoundError) as error:
        msg = f"Flower does not take its options: {error}"
        raise click.UsageError(msg) from error
    command.extract_settings()
    command.setup_logging()


def _serve(app: Celery) -> NoReturn:
    """Run Flower for `app` until a signal, and end this process."""
    from flower.app import Flower  # noqa: PLC0415
    from flower.urls import settings  # noqa: PLC0415
    from tornado.options import options  # noqa: PLC0415

    app.set_default()  # Flower asks for results in threads, without naming an app
    server = Flower(capp=app, options=options, **settings)
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        server.io_loop.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        server.io_loop.asyncio_loop.add_signal_handler(number, stop, number)
    port = _listen(server)
    click.echo(f"Flower    {_url(options, port)}")
    click.echo(f"broker    {mask_url(broker_of(app))}")
    click.echo("\nCtrl-C stops it.")
    server.start()
    server.stop()
    sys.stdout.flush(), sys.stderr.flush()
    # Python would wait for Flower's threads, and they for a broker that is away.
    os._exit(_INTERRUPTED if caught[0] == signal.SIGINT else 0)


def _listen(server: Any) -> int | None:
    try:
        return server.start_http_server()
    except OSError as error:
        options = server.options
        place = options.unix_socket or f"{options.address}:{options.port}"
        msg = f"Flower cannot listen on {place} ({error.strerror})."
        raise ConfigurationError(msg, "Choose another place with --port or --address.") from None


def _url(options: Any, port: int | None) -> str:
    """Return where a browser finds Flower; the path of its socket if it has one."""
    if options.unix_socket:
        return str(options.unix_socket)
    scheme = "https" if options.certfile else "http"
    host = f"[{options.address}]" if ":" in options.address else options.address
    prefix = f"/{options.url_prefix.strip('/')}/" if options.url_prefix else ""
    return f"{scheme}://{host}:{port}{prefix}"

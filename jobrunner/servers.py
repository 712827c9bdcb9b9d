"""Whether an app's broker and result backend are fit for durable jobs."""

from celery import Celery
from celery.backends.base import BaseKeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

from jobrunner.errors import ConfigurationError
from jobrunner.masking import mask_text, mask_url

#: Transport options of connections that nobody must wait for longer than a tracker's lease runs, in seconds: RabbitMQ
#: does not even read from one that it blocks because its memory is full. Redis's transport passes these over.
TIMEOUTS = {"read_timeout": 4.0, "write_timeout": 4.0}

#: Seconds for which somebody may be kept waiting who only wants to know whether a broker is there.
_A_MOMENT = {"socket_connect_timeout": 2.0, "connect_timeout": 2.0}

#: What Celery and kombu raise for a URL that they cannot read. Their sentences may hold a part of its password.
_NO_URL = (ValueError, TypeError, LookupError, AttributeError)
_QUOTING = "Write it as redis://:password@host:6379/0, with %23, %2F and %3F for #, / and ? in the password."


def broker_of(app: Celery) -> str:
    """Return the URL of an app's broker, of several as Celery writes them: separated by semicolons."""
    urls = app.conf.broker_write_url
    return urls if isinstance(urls, str) else ";".join(urls)


def transport_of(app: Celery) -> str:
    """Return the kind of an app's broker, in kombu's words.

    Raises:
        ConfigurationError: its URL cannot be read.
    """
    try:
        return str(app.connection_for_write().transport.driver_type)
    except _NO_URL:
        msg = f"The broker of the Celery app {app.main!r}, {mask_url(broker_of(app))!r}, is no URL of one."
        raise ConfigurationError(msg, _QUOTING) from None


def check_broker(app: Celery) -> None:
    """Raise unless the broker can hold the event log; asked by workers and trackers, not by those who submit.

    Raises:
        ConfigurationError: it is neither Redis (or Valkey) nor RabbitMQ, or its URL cannot be read.
    """
    transport = transport_of(app)
    if transport not in {"redis", "amqp"}:
        msg = f"The broker of the Celery app {app.main!r} is {transport}, which cannot hold the event log."
        raise ConfigurationError(msg, "Use Redis, Valkey or RabbitMQ as broker.")


def why_away(app: Celery) -> str | None:
    """Return why an app's broker cannot be reached just now; None if it can."""
    connection = app.connection_for_read(transport_options=TIMEOUTS | _A_MOMENT)
    try:
        connection.ensure_connection(max_retries=len(connection.alt))
    except (*connection.connection_errors, *connection.channel_errors, OperationalError) as error:
        return mask_text(str(error)).rstrip(".")
    finally:
        connection.release()
    return None


def check_backend(app: Celery) -> None:
    """Raise unless the result backend can hand values from task to task.

    Raises:
        ConfigurationError: there is none, or it is no key-value store that workers share.
    """
    remedy = "Set result_backend, or JOBRUNNER_RESULT_BACKEND, to a key-value store, such as redis://host/1."
    url = app.conf.result_backend
    if not url or str(url).startswith("disabled"):
        msg = f"The Celery app {app.main!r} has no result backend, where tasks leave their values for the next."
        raise ConfigurationError(msg, remedy)
    try:
        backend = app.backend
    except (ImproperlyConfigured, ImportError) as error:
        where = f"The result backend {mask_url(str(url))!r} of the Celery app {app.main!r}"
        msg = f"{where} cannot be used ({mask_text(str(error)).rstrip('.')})."
        raise ConfigurationError(msg, remedy) from None
    except _NO_URL as error:
        msg = f"The result backend of the Celery app {app.main!r}, {mask_url(str(url))!r}, is no URL of one."
        if "ssl_cert_reqs" in str(error):
            raise ConfigurationError(msg, "Add ?ssl_cert_reqs=required to it.") from None
        raise ConfigurationError(msg, _QUOTING) from None
    if not isinstance(backend, BaseKeyValueStoreBackend):
        scheme = str(url).partition(":")[0]
        msg = f"The result backend {scheme}:// of the Celery app {app.main!r} cannot hand values on to tasks."
        raise ConfigurationError(msg, remedy)

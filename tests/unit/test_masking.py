"""No password comes through, and what is none stays readable."""

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.masking import mask_text, mask_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://anna:secret@host/jobs", "postgresql://anna:***@host/jobs"),
        ("postgresql+psycopg://anna:secret@[::1]:5432/jobs", "postgresql+psycopg://anna:***@[::1]:5432/jobs"),
        ("amqp://guest:secret@host:5672//", "amqp://guest:***@host:5672//"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://anna:secret@host/0?ssl_cert_reqs=required", "rediss://anna:***@host/0?ssl_cert_reqs=required"),
        ("redis://:@host/0", "redis://:***@host/0"),
        (
            "sentinel://:secret@one:26379;sentinel://:secret@two:26379/0",
            "sentinel://:***@one:26379;sentinel://:***@two:26379/0",
        ),
        ("sentinel://one:1;sentinel://:secret@two:2", "sentinel://one:1;sentinel://:***@two:2"),
        ("sentinel://:secret@one:1;:secret@two:2", "sentinel://:***@two:2"),
        ("redis://host/0?password=secret", "redis://host/0?password=***"),
        ("redis://host/0?db=1&password=secret&a=b", "redis://host/0?db=1&password=***&a=b"),
        ("redis+socket:///run/x.sock?virtual_host=0&password=secret", "redis+socket:///run/x.sock?virtual_host=0&password=***"),
        ("redis://h/0?password=secret;redis://h/1?Password=secret", "redis://h/0?password=***;redis://h/1?Password=***"),
        ("postgresql:///jobs?host=/run&sslpassword=secret", "postgresql:///jobs?host=/run&sslpassword=***"),
        ("host=db password=secret dbname=jobs", "host=db password=*** dbname=jobs"),
        ("host=db password = 'my secret \\' secret' dbname=jobs", "host=db password = *** dbname=jobs"),
        ("host=db password=a\\ secret dbname=jobs", "host=db password=*** dbname=jobs"),
    ],
)  # fmt: skip
def test_the_password_of_a_url_is_masked_and_the_rest_is_not(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "jobs.db",
        "sqlite:////home/anna/jobs.db",
        "sqlite:///C:/jobs.db",
        "redis://host:6379/0",
        "redis://[::1]:6379/0",
        "redis+socket:///home/anna@work/broker.sock?virtual_host=0",
        "amqp://anna@host//",
        "postgresql:///jobs?sslkey=/etc/key.pem",
        "sentinel://one:1;sentinel://two:2",
        "/home/anna/.jobrunner",
        "project.celery:app",
    ],
)
def test_what_holds_no_password_stays_as_it_is(url: str) -> None:
    assert mask_url(url) == url
    assert mask_text(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/anna:secret@host/jobs",
        "anna:secret@host",
        ":secret@host",
        "redis://:sec#secret@host",
        "redis://:sec/secret@host",
        "redis://:sec?secret@host",
        "redis://:sec@secret@host",
        "redis://:sec;secret@host",
        "redis://:sec secret\nsecret@host",
        "redis://anna@corp:secret@host",
        "redis://host?password=sec secret",
        "redis://host?password=sec;secret",
        "redis://host?PASSWORD=secret",
        "redis://host?auth_token=secret#x",
        "host=h password=secret",
        "password=secret",
    ],
)
def test_a_password_does_not_show_however_badly_it_is_written(url: str) -> None:
    assert "secret" not in mask_url(url)


@pytest.mark.parametrize("text", ["Error 111 connecting to host:6379. Connection refused.", "task w1@host: done", ""])
def test_a_sentence_without_a_url_stays_as_it_is(text: str) -> None:
    assert mask_text(text) == text


def test_the_urls_in_a_sentence_are_masked() -> None:
    text = "no answer from redis://:secret@host/0 (password=secret), nor amqp://anna:secret@other//."
    masked = mask_text(text)
    assert "secret" not in masked
    assert masked.startswith("no answer from redis://:***@")
    assert masked.endswith("//.")


def test_what_is_masked_stays_masked_as_it_is() -> None:
    once = mask_url("postgresql://anna:secret@host/jobs?password=secret")
    assert mask_url(once) == once


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text("abc"))
def test_no_password_that_is_quoted_in_a_url_comes_through(password: str, user: str) -> None:
    assert mask_url(f"redis://{user}:{quote(password, safe='')}@host/0") == f"redis://{user}:***@host/0"

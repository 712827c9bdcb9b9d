"""Passwords stay out of what is printed, logged and stored.

Pure, and careful rather than exact: where a password might go on, more is hidden than needed. What is masked is for
people; nobody connects with it.
"""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

#: Where the next URL of a list begins: Celery separates the URLs of sentinels by semicolons.
_NEXT = r";[\w+.-]+://"
#: `user:password@`, also with no user. To the last @, because a password may hold one that nobody has quoted.
_CREDENTIALS = re.compile(rf"(://(?!\[)[^:/]*:)(?:(?!{_NEXT}).)*@", re.DOTALL)
#: The same in what was meant to be a URL.
_AFTER_COLON = re.compile(r":.*@", re.DOTALL)

_NAME = r"[\w-]*(?:passw|passphrase|pwd|secret|token|credential|api_?key|access_?key)[\w-]*"
_SECRET = re.compile(_NAME, re.IGNORECASE)
#: `?password=…`, to the next parameter.
_PARAMETER = re.compile(rf"([?&]{_NAME}=)(?:(?!{_NEXT})[^&])*", re.IGNORECASE)
#: `password=…` as libpq has it: quoted, or without spaces.
_WORD = re.compile(rf"(\b{_NAME}\s*=\s*)(?:'(?:[^'\\]|\\.)*'|(?:\\.|[^\s&\\])+)", re.IGNORECASE)


def mask_url(value: str) -> str:
    """Return what is, or was meant to be, a URL, a list of URLs or libpq's `key=value` text, without its passwords."""
    if "://" not in value:
        return mask_text(_AFTER_COLON.sub(f":{MASK}@", value))
    return _PARAMETER.sub(rf"\1{MASK}", _CREDENTIALS.sub(rf"\1{MASK}@", value))


def mask_text(text: str) -> str:
    """Return a sentence without the passwords of the URLs in it: for what drivers and brokers say of a connection."""
    return _WORD.sub(rf"\1{MASK}", mask_url(text) if "://" in text else text)


def mask_values(value: Any) -> Any:
    """Return a value, as JSON has it, without the passwords of the URLs in it, nor what is named as one."""
    match value:
        case str():
            return mask_text(value)
        case Mapping():
            return {
                name: MASK if isinstance(name, str) and _SECRET.fullmatch(name) else mask_values(one)
                for name, one in value.items()
            }
        case list() | tuple():
            return [mask_values(one) for one in value]
        case _:
            return value

"""What a task was submitted with, as its stored message tells it, for people: passwords are left out.

An object: keyword arguments by name; positional ones by their position in the call, `"0"` being the first, which of a
task that takes a value is that value, and is not told. So `{}` is a task without arguments. What a message does not say
in JSON, or what was given `argsrepr` or `kwargsrepr` to be shown instead, is one text, under `args` or `kwargs`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from celery.utils.saferepr import saferepr
from kombu.utils.json import loads

from jobrunner.masking import mask_text, mask_values

#: Celery's own limits of what it shows of arguments.
_LENGTH, _LEVELS = 1_024, 3


def parameters_of(body: bytes, content_type: str, headers: str, *, takes_value: bool) -> dict[str, Any]:
    """Return the arguments that a message of table `message` carries."""
    said = json.loads(headers)
    args, kwargs = _decoded(body) if content_type == "application/json" else (None, None)
    return {**_positional(args, said.get("argsrepr"), int(takes_value)), **_named(kwargs, said.get("kwargsrepr"))}


def _decoded(body: bytes) -> tuple[Any, Any]:
    try:
        args, kwargs, _ = loads(body)
    except (ValueError, TypeError):
        return None, None
    return args, kwargs


def _positional(args: Any, shown: str | None, first: int) -> dict[str, Any]:
    # JSON makes a list of every tuple.
    if isinstance(args, Sequence) and shown in {_shown(tuple(args)), _shown(list(args))}:
        return {str(position): mask_values(value) for position, value in enumerate(args, first)}
    return {} if shown in {None, "()", "[]"} else {"args": mask_text(str(shown))}


def _named(kwargs: Any, shown: str | None) -> dict[str, Any]:
    if isinstance(kwargs, Mapping) and shown == _shown(kwargs):
        named: dict[str, Any] = mask_values(kwargs)
        return named
    return {} if shown in {None, "{}"} else {"kwargs": mask_text(str(shown))}


def _shown(arguments: object) -> str:
    return str(saferepr(arguments, _LENGTH, _LEVELS))

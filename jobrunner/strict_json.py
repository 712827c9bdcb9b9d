"""JSON that everybody reads: databases, browsers and jq refuse NaN and the infinities, which Python would write.

Pure: no clock, database or broker.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def dumps(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON, with null for every number that JSON has no word for.

    Raises:
        TypeError, ValueError, RecursionError: it is no JSON for another reason.
    """
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=default)
    except ValueError:
        return json.dumps(_without(value), allow_nan=False, indent=indent, default=default)


def loads(text: str) -> Any:
    """Read JSON that everybody would.

    Raises:
        ValueError, RecursionError: it is none.
    """
    return json.loads(text, parse_constant=_refuse)


def _without(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key) if isinstance(key, float) else key: _without(one) for key, one in value.items()}
    return [_without(one) for one in value] if isinstance(value, list | tuple) else value


def _refuse(word: str) -> Any:
    msg = f"{word} is no JSON"
    raise ValueError(msg)

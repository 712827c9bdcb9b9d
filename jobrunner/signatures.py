"""Reading what is a signature, or was one before it was serialized: a task, a whole canvas, a callback.

Pure; what is neither is refused by the way to it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from celery import Task
from celery.canvas import Signature, maybe_signature
from celery.result import AsyncResult, ResultBase
from celery.utils.functional import maybe_list

from jobrunner.errors import InvalidCanvasError


def as_signature(candidate: object, path: str) -> Signature:
    """Return what is a signature, or what Celery would make one of.

    Raises:
        InvalidCanvasError: it is neither.
    """
    if isinstance(candidate, Signature):
        return candidate
    if isinstance(candidate, Task):
        msg = f"the task {candidate.name} is no canvas yet."
        raise InvalidCanvasError(msg, f"Pass a signature of it, such as {candidate.name}.s(…).", path=path)
    if isinstance(candidate, ResultBase | AsyncResult):
        msg = "this is a result: its canvas has been sent already."
        raise InvalidCanvasError(msg, "Pass the canvas itself and let submit send it.", path=path)
    if isinstance(candidate, dict) and "task" in candidate:
        try:
            return maybe_signature({"args": (), "kwargs": {}, "options": {}, **candidate})
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"this dict is no signature that Celery can read ({error!r})."
            raise InvalidCanvasError(msg, "Pass the signature itself.", path=path) from None
    msg = f"{type(candidate).__name__} is no canvas."
    raise InvalidCanvasError(msg, "Pass a signature, chain, group or chord of tasks.", path=path)


def links(options: Mapping[str, Any], path: str) -> Iterator[tuple[str, Signature, str]]:
    """Yield the callbacks and errbacks among the options of a signature: the option, the signature, the way to it."""
    for option in ("link", "link_error"):
        for index, link in enumerate(maybe_list(options.get(option)) or ()):
            link_path = f"{path}.{option}[{index}]"
            yield option, as_signature(link, link_path), link_path

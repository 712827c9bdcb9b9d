"""Identities: time-ordered keys, and the Celery id of each delivery."""

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0


def uuid7() -> str:
    """Return a new UUIDv7 (RFC 9562) as text.

    Ids made by one process ascend even within a millisecond: the 12 bits behind the time count up (method 3 of section
    6.2), so the tasks of a job lie in the index in the order in which they were planned.
    """
    global _last  # noqa: PLW0603  the counter is what makes ids of one process ascend
    moment = time.time_ns() * 4096 // 1_000_000  # milliseconds in the upper 48 bits, 12 bits of their fraction below
    with _lock:
        _last = moment = max(moment, _last + 1)
    high = (moment >> 12) << 16 | 0x7000 | moment & 0xFFF
    low = 0x8000_0000_0000_0000 | int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_uuid7(text: object) -> bool:
    """Whether this may be the id of a job; tasks that Celery itself gives an id have one of version 4."""
    return isinstance(text, str) and len(text) == 36 and text[14] == "7"  # noqa: PLR2004  where a UUID has its version


def celery_id(task_id: str, delivery: int) -> str:
    """Return the Celery id of a task's delivery, numbered from 1.

    The first delivery uses the task's own id. Later ones need ids of their own, because a key-value backend never
    overwrites a stored success: a second run under the first id would read the first one's value.
    """
    if delivery <= 1:
        return task_id
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task_id}/{delivery}"))

"""The event log: the durable queue of event batches between workers and tracker, one module per broker."""

from tracker.eventlog.entries import Batch, Entry, EventLog
from tracker.eventlog.opening import open_log

__all__ = ["Batch", "Entry", "EventLog", "open_log"]

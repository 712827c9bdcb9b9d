"""What trackers agree by: who leads, and how far the event log was read."""

from sqlalchemy import Column, Double, String, Table, Text

from jobrunner.store.schema.columns import metadata
from jobrunner.text import NAME

#: One row: which tracker leads, and until when.
lease = Table(
    "lease",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("holder", String(NAME), nullable=False),
    Column("expires_at", Double, nullable=False),  # seconds since 1970 by the database's clock
    Column("trouble", Text),  # what keeps the holder from its work, for people
    Column("caught_up_at", Double),  # until then all that was reported is in the database; by the same clock
)

#: How far an event log was read, moved in the transaction that folds what was read.
log_position = Table(
    "log_position",
    metadata,
    Column("log", String(NAME), primary_key=True),
    Column("position", String(NAME), nullable=False),
)

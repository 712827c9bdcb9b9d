"""What the tables are made of: ids, times, and indexes of some of the rows."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, Dialect, Double, Index, MetaData, String, text
from sqlalchemy.types import TypeDecorator, TypeEngine

from jobrunner.text import NAME

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(column_0_N_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` where there is one; on SQLite, which has none, seconds since 1970."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database at hand."""
        return dialect.type_descriptor(Double() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Hand a time to the driver."""
        return value.timestamp() if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Take a time from the driver."""
        return datetime.fromtimestamp(value, UTC) if value is not None and dialect.name == "sqlite" else value


def id_column(name: str, **kwargs: Any) -> Column[str]:
    """Return a column for an id: ours, Celery's, or one that a user chose."""
    return Column(name, String(NAME), **kwargs)


def partial_index(name: str, column: str, condition: str) -> Index:
    """Return an index of the few rows that meet a condition; a query uses it only if it states the same one."""
    return Index(name, column, sqlite_where=text(condition), postgresql_where=text(condition))

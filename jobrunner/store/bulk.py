"""Many rows at once, as each database does it best: executemany on SQLite, COPY and arrays on PostgreSQL.

Statements are built once, at import: building one costs more than running it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    DateTime,
    Executable,
    Table,
    TableValuedAlias,
    bindparam,
    column,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from jobrunner.store.schema import Moment

_Row = Mapping[str, Any]
#: Rows per `executemany`: SQLAlchemy keeps all of them, in the database's own types, for as long as it runs.
_AT_A_TIME = 1_000
#: Ids per `IN (…)`: SQLite before 3.32 takes 999 parameters in all.
_IDS: Final = 500


def insert_rows(connection: Connection, table: Table, rows: Iterable[_Row]) -> None:
    """Insert rows that all have the same columns, in the same order; of an iterator never more than some at a time."""
    left = iter(rows)
    if connection.dialect.name == "postgresql":
        first = next(left, None)
        if first is not None:
            _copy(connection, table, list(first), chain([first], left))
        return
    statement = insert(table)
    while some := list(islice(left, _AT_A_TIME)):
        connection.execute(statement, some)


def portions(ids: Collection[str]) -> Iterator[Sequence[str]]:
    """Yield ids so many at a time as every database takes in one `IN (…)`."""
    all_of_them = list(ids)
    return (all_of_them[start : start + _IDS] for start in range(0, len(all_of_them), _IDS))


def _copy(connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[_Row]) -> None:
    import psycopg  # noqa: PLC0415  an extra: whoever is here has it
    from psycopg.sql import SQL, Identifier  # noqa: PLC0415

    names = SQL(", ").join(map(Identifier, columns))
    statement = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table.name), names)
    try:
        with connection.connection.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[attr-defined]
            for row in rows:
                copy.write_row(tuple(row.values()))
    except psycopg.Error as error:
        text = statement.as_string()
        raise DBAPIError.instance(text, None, error, psycopg.Error, dialect=connection.dialect) from error


class InsertNew:
    """`INSERT … ON CONFLICT DO NOTHING`, of rows with these columns: those whose key is there already are left out."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self._names = columns
        each = {name: bindparam(_name(name), type_=table.c[name].type) for name in columns}
        self._one_by_one = sqlite.insert(table).values(each).on_conflict_do_nothing()
        given = _given(table, columns)
        rows = select(*(given.c[name] for name in columns))
        self._at_once = postgresql.insert(table).from_select(list(columns), rows).on_conflict_do_nothing()

    def run(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """Insert those of these rows that are new."""
        _run(connection, self._at_once, self._one_by_one, self._names, rows)


class Update:
    """`UPDATE table SET changes WHERE keys = … AND conditions`, for rows that each have all keys and changes."""

    def __init__(
        self, table: Table, keys: Sequence[str], changes: Sequence[str], *conditions: ColumnElement[bool]
    ) -> None:
        self._names = [*keys, *changes]
        each: dict[str, BindParameter[Any]] = {name: bindparam(_name(name)) for name in self._names}
        self._one_by_one = (
            update(table)
            .where(*(table.c[name] == each[name] for name in keys), *conditions)
            .values({table.c[name]: each[name] for name in changes})
        )
        given = _given(table, self._names)
        self._at_once = (
            update(table)
            .where(*(table.c[name] == given.c[name] for name in keys), *conditions)
            .values({table.c[name]: given.c[name] for name in changes})
        )

    def run(self, connection: Connection, rows: Sequence[_Row]) -> None:
        """Change these rows; keys of rows that do not exist, or do not meet the conditions, are passed over."""
        _run(connection, self._at_once, self._one_by_one, self._names, rows)


def _given(table: Table, names: Sequence[str]) -> TableValuedAlias:
    """Return rows with some of a table's columns, from an array for each."""
    arrays = (bindparam(_name(name), type_=_array_of(table, name)) for name in names)
    given = func.unnest(*arrays).table_valued(*(column(name, table.c[name].type) for name in names))
    return given.render_derived(name="given")


def _run(
    connection: Connection, at_once: Executable, one_by_one: Executable, names: Sequence[str], rows: Sequence[_Row]
) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(at_once, {_name(name): [row[name] for row in rows] for name in names})
    else:
        connection.execute(one_by_one, [{_name(name): row[name] for name in names} for row in rows])


def _name(column_name: str) -> str:
    return f"each_{column_name}"  # SQLAlchemy keeps a column's own name to itself


def _array_of(table: Table, name: str) -> ARRAY[Any]:
    kind = table.c[name].type
    return ARRAY(DateTime(timezone=True) if isinstance(kind, Moment) else kind)

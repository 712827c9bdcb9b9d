"""A database that refuses what one worker tells: a true error of content, for tests of what the tracker does then."""

from jobrunner.store.database import Database

#: The worker of whom no attempt may be written.
POISON = "poison@house"

_RULES = {
    True: [
        f"CREATE TRIGGER refuse_{when} BEFORE {when} ON attempt WHEN NEW.worker = '{POISON}'"
        " BEGIN SELECT RAISE(ABORT, 'poison'); END"
        for when in ("INSERT", "UPDATE")
    ],
    False: [f"ALTER TABLE attempt ADD CONSTRAINT refuse CHECK (worker <> '{POISON}')"],
}


def refuse_poison(database: Database) -> None:
    """Let the database refuse attempts of the worker `POISON`."""
    with database.write() as connection:
        for rule in _RULES[database.is_sqlite]:
            connection.exec_driver_sql(rule)

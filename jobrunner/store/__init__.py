"""The database: schema, migrations, and every SQL statement, each named for what it answers or changes."""

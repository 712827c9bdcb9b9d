"""The database: schema, migrations, and every SQL statement of the project, each named for what it answers or changes."""

"""Runs the migrations of one schema: on the connection that ``dbosflow._store.migrate`` hands over, or as SQL text.

The migrations themselves are hand-written SQL; alembic keeps their order and the version table. That table lives in
the schema it describes, so two schemas of one database migrate apart from each other.
"""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes

context.configure(
    connection=attributes.get("connection"),
    dialect_name="postgresql",
    dialect_opts={"paramstyle": "named"},  # in a printed script a % is a %
    version_table="schema_version",
    version_table_schema=attributes["schema"],
    transactional_ddl=True,
)

with context.begin_transaction():
    if context.is_offline_mode():  # with a connection, all this was done before it was handed over
        context.get_context().impl.static_output(attributes["preamble"])
    context.run_migrations()

"""The table with the oldest code has a primary key: the SQL is in the file of the same name."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from dbosflow._store import migrate

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrate.run_file(op.get_context(), Path(__file__).with_suffix(".sql"))

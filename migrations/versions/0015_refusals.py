"""The functions for SQL say what they cannot do: the SQL is in the file of the same name."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from dbosflow._store import migrate

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrate.run_file(op.get_context(), Path(__file__).with_suffix(".sql"))

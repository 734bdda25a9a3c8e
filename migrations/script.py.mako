"""${message}: the SQL is in the file of the same name.

Revises: ${down_revision | comma,n}
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from dbosflow._store import migrate

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    migrate.run_file(op.get_context(), Path(__file__).with_suffix(".sql"))

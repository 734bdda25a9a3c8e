"""What waits is in its queue's index by name, so claims pass over names: the SQL is in the file of the same name.

Older code goes on beside it. Its claims take the same workflows in the same order, but find no index of that order:
they sort all that waits in the queue and has a name that they know. With 1,000 of these a claim takes 0.3 ms longer
than before, with 100,000 some 30 ms.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

from dbosflow._store import migrate

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    migrate.run_file(op.get_context(), Path(__file__).with_suffix(".sql"))

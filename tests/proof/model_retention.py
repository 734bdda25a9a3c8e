"""The model of workflows that wait and run, with those that are removed, and that move from one database to another.

What has ended goes with all its rows, and its id is free again, while workers still believe what they believed of it.
An export followed by an import leaves a workflow as it was, in whatever state it is but running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from dbosflow._store import retention, transfer
from tests.proof.model_suspension import Suspensions
from tests.proof.model_workflows import ids
from tests.protocol.schedules import SCHEMA
from tests.support import eventually

if TYPE_CHECKING:
    from dbosflow._store.transfer import Row


class Retention(Suspensions):
    """The machine."""

    @rule()
    def prune(self) -> None:
        """All that has ended goes; a statement elsewhere in the server may hold it up for a moment."""
        ended = {one for one, row in self.model.items() if row.ended}
        eventually(lambda: self._pruned() == self.model.keys() - ended)
        for one in ended:
            del self.model[one]

    def _pruned(self) -> set[str]:
        self.run(retention.prune(self.db.admin, SCHEMA, 0.0, 100))
        return {one for (one,) in self.rows("SELECT id FROM dbosflow.workflow")}

    @rule(chosen=st.sets(ids, min_size=1, max_size=3))
    def delete(self, chosen: set[str]) -> None:
        """Of some what has ended, and an answer for each that there is."""
        left = chosen & self.model.keys()
        expected = {
            one: ("deleted" if self.model[one].ended else "active", self.model[one].status) for one in sorted(left)
        }
        found: dict[str, tuple[str, str]] = {}

        def is_done() -> bool:
            found.update(self.run(retention.delete(self.db.admin, SCHEMA, sorted(chosen), children=False)))
            return "held" not in {outcome for outcome, _ in found.values()}

        eventually(is_done)
        assert found == expected
        for one in left:
            if self.model[one].ended:
                del self.model[one]

    @rule(one=ids)
    def move(self, one: str) -> None:
        """The same rows, and so the same that may happen next."""
        row = self.model.get(one)
        if row is None or row.status == "running":
            return
        before = self.run(self._exported(one))
        for table in transfer.TABLES:
            self.rows(f"DELETE FROM dbosflow.{table} WHERE {'id' if table == 'workflow' else 'workflow_id'} = %s", one)
        self.run(self._imported(before))
        assert self.run(self._exported(one)) == before

    async def _exported(self, one: str) -> dict[str, list[Row]]:
        connection = self.db.admin
        async with connection.transaction():
            await transfer.begin_export(connection, SCHEMA)
            columns = await transfer.columns(connection, SCHEMA)
            return {
                table: sorted([row async for row in transfer.rows(connection, SCHEMA, table, names, [one])], key=repr)
                for table, names in columns.items()
            }

    async def _imported(self, found: dict[str, list[Row]]) -> None:
        connection: Any = self.db.admin
        async with connection.transaction():
            for table, names in (await transfer.columns(connection, SCHEMA)).items():
                await transfer.insert(connection, SCHEMA, table, names, found[table])

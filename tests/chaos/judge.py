"""Judges workflows while the run goes on: each family once nobody has anything to do with it any more, then forgets it.

So memory does not grow with the run, and what is judged may be removed from the database.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import groupby
from math import inf
from pprint import pformat
from typing import TYPE_CHECKING, LiteralString

from dbosflow.types import WorkflowStatus
from tests.behaviour.tables import disorder, rows
from tests.chaos import oracles
from tests.chaos.crowd import Crowd
from tests.chaos.history.ledger_reader import LedgerReader
from tests.chaos.history.run_history import RunHistory
from tests.chaos.history.takeovers import takeovers
from tests.chaos.history.workflow_history import histories, root_of
from tests.chaos.oracles_streams import PRUNED, check_reading
from tests.chaos.oracles_workers import Deaths
from tests.chaos.strikes import troubles
from tests.chaos.workloads.limited_queue import QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.chaos.checkers.model import Expected
    from tests.chaos.crew import Frozen, Place
    from tests.chaos.customers import Customers
    from tests.chaos.history.run_history import WriteHistory
    from tests.chaos.history.workflow_history import WorkflowHistory
    from tests.chaos.readers import Readers
    from tests.chaos.report import Report
    from tests.chaos.strikes import Strikes
    from tests.chaos.witness import Witness

SETTLING = 10.0
"""Seconds after its end in which a process that was frozen may still do something for a workflow that it lost."""
_FAMILIES = 1000
"""So many are judged at a time at most."""
_READ_SLOWLY = 10
"""At most one in so many of those that are judged is read until it is removed."""
_LONG_ENOUGH = range(40, 80)
"""Values of a stream that such a reader is busy with for a while."""
_SLOW_READERS = 20
_LOOKED_EVERY = 15.0
_HITS = 300
_ROOTS: LiteralString = "SELECT DISTINCT split_part(id, '/', 1) FROM dbosflow.workflow"


class Judge:
    """The oracles of a run, and what they have to go by."""

    def __init__(
        self,
        url: str,
        report: Report,
        *,
        evidence: Path,
        customers: Customers,
        readers: Readers,
        strikes: Strikes,
        witness: Witness,
        places: Sequence[Place],
    ) -> None:
        self.judged: dict[str, float] = {}
        """The roots of the families that are judged and may still be in the database, and when they were."""
        self.deaths = Deaths(url)
        self.recorded: Counter[int] = Counter()
        """How many records of those that are judged were made in each second."""
        self._url = url
        self._report = report
        self._evidence = evidence
        self._customers = customers
        self._readers = readers
        self._strikes = strikes
        self._witness = witness
        self._places = places
        self.slowly_read: dict[str, tuple[WorkflowHistory, Expected]] = {}
        """What readers of judged workflows are to see."""
        self._passed_over = 0
        self._is_over = False
        self._sitting = threading.Lock()
        self._looked_at = 0.0
        self._disorder: set[str] = set()
        self._crowd = Crowd(QUEUE_LIMIT, ())
        self._ledger = LedgerReader(self._crowd.follow)

    def sit(self) -> None:
        """Judges the families that have settled."""
        with self._sitting:
            self._sit()

    def sit_last(self) -> None:
        """Judges whatever is left, when everybody has stopped."""
        with self._sitting:
            self._sit_last()

    def _sit(self) -> None:
        self._read_on()
        self._ledger.rotate()
        now = time.monotonic()
        settled = [
            workflow_id
            for workflow_id, at in [*self._customers.settled.items()]
            if now - at > SETTLING and not self._readers.owe(workflow_id)
        ]
        for root_id, family in self._families(settled[:_FAMILIES]):
            if all(WorkflowStatus(history.row["status"]).ended for history in family):
                self._judge_family(root_id, family)
        self._judge_slow_readers()
        if now - self._looked_at > _LOOKED_EVERY:
            self._look_at_tables()
            self._looked_at = now
        self._compare_ends()
        self._look_at_deaths(until=time.time() - SETTLING)
        del self._strikes.hits[:-_HITS]

    def _sit_last(self) -> None:
        self._read_on()
        self._judge_slow_readers()
        self._look_at_tables()
        self._compare_ends()
        self._look_at_deaths()
        self._is_over = True
        acknowledged = {*self._customers.acknowledged}
        for root_id, family in self._families(None):
            if root_id not in self.judged:
                self._judge_family(root_id, family)
        self._report.violations += [
            f"{one} was acknowledged, and is not there" for one in acknowledged - self.judged.keys()
        ]
        self._report.violations += [f"{one}: its slow reader has not ended" for one in self.slowly_read]

    # -- workflows ---------------------------------------------------------------------------------------------------

    def _families(self, roots: Sequence[str] | None) -> Iterator[tuple[str, list[WorkflowHistory]]]:
        found = sorted(histories(self._url, self._ledger, roots=roots), key=lambda history: history.root_id)
        for root_id, family in groupby(found, key=lambda history: history.root_id):
            yield root_id, [*family]

    def _judge_family(self, root_id: str, family: list[WorkflowHistory]) -> None:
        customers, report = self._customers, self._report
        readings = self._readers.take(root_id)
        run_history = RunHistory(
            customers.asked, self._frozen(), customers.outsiders.written, customers.trimmer.trimmed
        )
        for history in family:
            wanted = oracles.expected_of(history, run_history)
            wrong = [*oracles.check_workflow(history, wanted, run_history)]
            if history.workflow_id == root_id:
                for reading in readings:
                    report.readings[str(reading["mode"])] += 1
                    report.truncated += len(reading["truncated"])
                    wrong += check_reading(reading, history, wanted)
                wrong += oracles.check_told(history, customers.seen.get(root_id))
                self._have_read_slowly(history, wanted)
            if wrong:
                report.violations += [f"{history.workflow_id} ({history.row['name']}): {what}" for what in wrong]
                self._keep(history, wrong, customers.outsiders.written.get(history.workflow_id))
            self._count(history)
        self.judged[root_id] = time.time()
        for history in family:
            self._ledger.forget(history.workflow_id)
        customers.forget(root_id)

    def _keep(self, history: WorkflowHistory, wrong: list[str], written: WriteHistory | None) -> None:
        """What is known of a workflow with which something is wrong: its rows are removed soon."""
        path = self._evidence / f"{history.workflow_id.replace('/', ' ')}.evidence"
        path.write_text(pformat([wrong, vars(history), written], width=160))

    def _count(self, history: WorkflowHistory) -> None:
        report = self._report
        report.workflows[history.row["status"]] += 1
        report.records += len(history.steps)
        self.recorded.update(int(step["recorded_at"]) for step in history.steps)
        report.items += sum(step["loop_key"] is not None and step["kind"] == "step" for step in history.steps)
        report.frames += sum(block["count"] for block in history.blocks if block["kind"] == "values")
        for kind, running, written in takeovers(self._strikes.hits, history):
            report.running_again[kind].add(running)
            report.written_again[kind].add(written)

    # -- readers of what is removed ----------------------------------------------------------------------------------

    def _have_read_slowly(self, history: WorkflowHistory, wanted: Expected) -> None:
        """Has a stream read by somebody who will not have come to its end when the workflow is removed."""
        keys = [key for key in history.keys() if len(history.values(key)) in _LONG_ENOUGH]  # noqa: SIM118 (it is no dictionary)
        self._passed_over += 1
        if not self._is_over and keys and self._passed_over >= _READ_SLOWLY and len(self.slowly_read) < _SLOW_READERS:
            self._passed_over = 0
            self.slowly_read[history.workflow_id] = history, wanted
            self._readers.read_slowly(history.workflow_id, keys[0])

    def _judge_slow_readers(self) -> None:
        for workflow_id in [one for one in self.slowly_read if not self._readers.owe(one)]:
            history, wanted = self.slowly_read.pop(workflow_id)
            for reading in self._readers.take(workflow_id):
                removed = reading["end"] == PRUNED
                self._report.readings["slow, to the end" if not removed else "slow, until it was removed"] += 1
                wrong = check_reading(reading, history, wanted, pruned=True)
                self._report.violations += [f"{workflow_id} ({history.row['name']}): {what}" for what in wrong]

    # -- everything at once ------------------------------------------------------------------------------------------

    def _look_at_tables(self) -> None:
        """What holds of all rows at any moment."""
        found = {*disorder(self._url)} - self._disorder
        self._disorder |= found
        self._report.violations += sorted(found)

    def _compare_ends(self) -> None:
        """No end has changed, and nothing is gone that was not judged."""
        there = {root_id for (root_id,) in rows(self._url, _ROOTS)}  # before the comparison: it forgets what is not
        self._report.violations += self._witness.compare(removed=self.judged)
        for root_id in self.judged.keys() - there:
            del self.judged[root_id]

    def _look_at_deaths(self, *, until: float = inf) -> None:
        """Of those that died up to then, all that may excuse it is known by now."""
        ended = {pid: at for place in self._places for pid, at in place.ended.copy().items()}
        excuses = troubles(self._strikes, self._witness, self._places)
        self._report.violations += self.deaths.look(excuses, ended, until=until)

    def _frozen(self) -> list[Frozen]:
        return [one for place in self._places for one in place.frozen.copy()]

    def _read_on(self) -> None:
        """Reads the ledger; whatever was judged is over."""
        self._crowd.frozen = frozen = self._frozen()
        self._ledger.read_on()
        self._report.crowd = self._crowd.largest
        self._report.violations += self._crowd.complaints
        self._crowd.complaints.clear()
        for workflow_id, line in self._ledger.late(self.judged):
            if line.what == "begin" and not oracles.was_frozen(line.pid, line.at, line.at, frozen):
                late = line.at - self.judged[root_of(workflow_id)]
                self._report.violations.append(
                    f"{workflow_id}: step {line.key!r} began in {line.pid} {late:.3f} s after it was judged"
                )

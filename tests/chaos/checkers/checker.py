"""The checker of a run: checks each tree of workflows once no client has anything to do with it, then forgets it.

So memory does not grow with the run, and what is checked may be removed from the database.
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
from tests.chaos.checkers.queue_limit import QueueLimitChecker
from tests.chaos.checkers.streams import PRUNED, check_reading
from tests.chaos.checkers.workers import DeathChecker
from tests.chaos.checkers.workflows import check_outcome, check_workflow, expected_of, was_frozen
from tests.chaos.history.ledger_reader import LedgerReader
from tests.chaos.history.run_history import RunHistory
from tests.chaos.history.takeovers import takeovers
from tests.chaos.history.workflow_history import histories, root_of
from tests.chaos.nemeses.nemesis import disruptions
from tests.chaos.workloads.limited_queue import QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.chaos.checkers.final_states import FinalStateMonitor
    from tests.chaos.checkers.model import Expected
    from tests.chaos.clients.readers import Readers
    from tests.chaos.clients.workflow_clients import WorkflowClients
    from tests.chaos.history.run_history import WriteHistory
    from tests.chaos.history.workflow_history import WorkflowHistory
    from tests.chaos.nemeses.nemesis import Nemesis
    from tests.chaos.nodes.workers import Frozen, WorkerNode
    from tests.chaos.report import Report

SETTLING = 10.0
"""Seconds after its end in which a process that was frozen may still do something for a workflow that it lost."""
_TREES = 1000
"""So many are checked at a time at most."""
_READ_SLOWLY = 10
"""At most one in so many of those that are checked is read until it is removed."""
_LONG_ENOUGH = range(40, 80)
"""Values of a stream that such a reader is busy with for a while."""
_SLOW_READERS = 20
_TABLES_EVERY = 15.0
_LOSSES = 300
_ROOTS: LiteralString = "SELECT DISTINCT split_part(id, '/', 1) FROM dbosflow.workflow"


class Checker:
    """All checkers of a run, with the histories that they need."""

    def __init__(
        self,
        url: str,
        report: Report,
        *,
        evidence: Path,
        clients: WorkflowClients,
        readers: Readers,
        nemesis: Nemesis,
        final_states: FinalStateMonitor,
        nodes: Sequence[WorkerNode],
    ) -> None:
        self.checked: dict[str, float] = {}
        """The roots of the trees that are checked and may still be in the database, and when they were."""
        self.deaths = DeathChecker(url)
        self.recorded: Counter[int] = Counter()
        """How many records of those that are checked were made in each second."""
        self._url = url
        self._report = report
        self._evidence = evidence
        self._clients = clients
        self._readers = readers
        self._nemesis = nemesis
        self._final_states = final_states
        self._nodes = nodes
        self.slowly_read: dict[str, tuple[WorkflowHistory, Expected]] = {}
        """What readers of checked workflows are to see."""
        self._passed_over = 0
        self._is_over = False
        self._lock = threading.Lock()
        self._tables_at = 0.0
        self._disorder: set[str] = set()
        self._limit = QueueLimitChecker(QUEUE_LIMIT, ())
        self._ledger = LedgerReader(self._limit.follow)

    def check(self) -> None:
        """Checks the trees that have settled."""
        with self._lock:
            self._check()

    def check_last(self) -> None:
        """Checks whatever is left, when every process has stopped."""
        with self._lock:
            self._check_last()

    def _check(self) -> None:
        self._read_on()
        self._ledger.rotate()
        now = time.monotonic()
        settled = [
            workflow_id
            for workflow_id, at in [*self._clients.settled.items()]
            if now - at > SETTLING and not self._readers.is_pending(workflow_id)
        ]
        for root_id, tree in self._trees(settled[:_TREES]):
            if all(WorkflowStatus(history.row["status"]).ended for history in tree):
                self._check_tree(root_id, tree)
        self._check_slow_readers()
        if now - self._tables_at > _TABLES_EVERY:
            self._check_tables()
            self._tables_at = now
        self._check_final_states()
        self._check_deaths(until=time.time() - SETTLING)
        del self._nemesis.owner_losses[:-_LOSSES]

    def _check_last(self) -> None:
        self._read_on()
        self._check_slow_readers()
        self._check_tables()
        self._check_final_states()
        self._check_deaths()
        self._is_over = True
        acknowledged = {*self._clients.acknowledged}
        for root_id, tree in self._trees(None):
            if root_id not in self.checked:
                self._check_tree(root_id, tree)
        self._report.violations += [
            f"{one} was acknowledged, and is not there" for one in acknowledged - self.checked.keys()
        ]
        self._report.violations += [f"{one}: its slow reader has not ended" for one in self.slowly_read]

    # -- workflows ---------------------------------------------------------------------------------------------------

    def _trees(self, roots: Sequence[str] | None) -> Iterator[tuple[str, list[WorkflowHistory]]]:
        found = sorted(histories(self._url, self._ledger, roots=roots), key=lambda history: history.root_id)
        for root_id, tree in groupby(found, key=lambda history: history.root_id):
            yield root_id, [*tree]

    def _check_tree(self, root_id: str, tree: list[WorkflowHistory]) -> None:
        clients, report = self._clients, self._report
        readings = self._readers.take(root_id)
        run_history = RunHistory(
            clients.cancel_requested,
            self._frozen(),
            clients.writers.written,
            clients.trimmer.trimmed,
            clients.answerer.answered,
        )
        for history in tree:
            wanted = expected_of(history, run_history)
            wrong = [*check_workflow(history, wanted, run_history)]
            if history.workflow_id == root_id:
                for reading in readings:
                    report.readings[str(reading["mode"])] += 1
                    report.truncated += len(reading["truncated"])
                    wrong += check_reading(reading, history, wanted)
                wrong += check_outcome(history, clients.outcomes.get(root_id))
                self._have_read_slowly(history, wanted)
            if wrong:
                report.violations += [f"{history.workflow_id} ({history.row['name']}): {what}" for what in wrong]
                self._keep(history, wrong, clients.writers.written.get(history.workflow_id))
            self._count(history)
        self.checked[root_id] = time.time()
        for history in tree:
            self._ledger.forget(history.workflow_id)
        clients.forget(root_id)

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
        for kind, running, written in takeovers(self._nemesis.owner_losses, history):
            report.running_again[kind].add(running)
            report.written_again[kind].add(written)

    # -- readers of what is removed ----------------------------------------------------------------------------------

    def _have_read_slowly(self, history: WorkflowHistory, wanted: Expected) -> None:
        """Has a stream read by a slow reader, which will not have come to its end when the workflow is removed."""
        keys = [key for key in history.keys() if len(history.values(key)) in _LONG_ENOUGH]  # noqa: SIM118 (it is no dictionary)
        self._passed_over += 1
        if not self._is_over and keys and self._passed_over >= _READ_SLOWLY and len(self.slowly_read) < _SLOW_READERS:
            self._passed_over = 0
            self.slowly_read[history.workflow_id] = history, wanted
            self._readers.read_slowly(history.workflow_id, keys[0])

    def _check_slow_readers(self) -> None:
        for workflow_id in [one for one in self.slowly_read if not self._readers.is_pending(one)]:
            history, wanted = self.slowly_read.pop(workflow_id)
            for reading in self._readers.take(workflow_id):
                removed = reading["end"] == PRUNED
                self._report.readings["slow, to the end" if not removed else "slow, until it was removed"] += 1
                wrong = check_reading(reading, history, wanted, pruned=True)
                self._report.violations += [f"{workflow_id} ({history.row['name']}): {what}" for what in wrong]

    # -- everything at once ------------------------------------------------------------------------------------------

    def _check_tables(self) -> None:
        """What holds of all rows at any moment."""
        found = {*disorder(self._url)} - self._disorder
        self._disorder |= found
        self._report.violations += sorted(found)

    def _check_final_states(self) -> None:
        """No end has changed, and nothing is gone that was not checked."""
        there = {root_id for (root_id,) in rows(self._url, _ROOTS)}  # before the comparison: it forgets what is not
        self._report.violations += self._final_states.compare(removed=self.checked)
        for root_id in self.checked.keys() - there:
            del self.checked[root_id]

    def _check_deaths(self, *, until: float = inf) -> None:
        """Of those that died up to then, all that may excuse it is known by now."""
        ended = {pid: at for node in self._nodes for pid, at in node.ended.copy().items()}
        known = disruptions(self._nemesis, self._final_states, self._nodes)
        self._report.violations += self.deaths.check(known, ended, until=until)

    def _frozen(self) -> list[Frozen]:
        return [one for node in self._nodes for one in node.frozen.copy()]

    def _read_on(self) -> None:
        """Reads the ledger; whatever was checked is over."""
        self._limit.frozen = frozen = self._frozen()
        self._ledger.read_on()
        self._report.queue_peak = self._limit.peak
        self._report.violations += self._limit.violations
        self._limit.violations.clear()
        for workflow_id, line in self._ledger.late(self.checked):
            if line.what == "begin" and not was_frozen(line.pid, line.at, line.at, frozen):
                late = line.at - self.checked[root_of(workflow_id)]
                self._report.violations.append(
                    f"{workflow_id}: step {line.key!r} began in {line.pid} {late:.3f} s after it was checked"
                )

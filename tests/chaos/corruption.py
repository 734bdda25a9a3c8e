"""What the tests of the checkers share: workflows that went well, and ways to corrupt what the database holds."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from dbosflow import Engine
from tests.chaos.checkers.workflows import check_workflow, expected_of
from tests.chaos.history.run_history import AnswerHistory, RunHistory, WriteHistory
from tests.chaos.history.workflow_history import histories
from tests.chaos.workloads.basic import QUEUE
from tests.chaos.workloads.messages import ASKED, END, TOPIC, reply_to, token_event
from tests.chaos.workloads.registry import WORKLOADS

if TYPE_CHECKING:
    from tests.chaos.history.workflow_history import WorkflowHistory

RUNS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "sequence": ("sequence", (5, 0.0)),
    "sequence_on_thread": ("sequence_on_thread", (5, 0.0)),
    "branching": ("branching", (2, 2, 0.0)),
    "retrying": ("retrying", (1, 3, 0.0)),
    "resuming": ("resuming", (1, 3, 0.0)),
    "failing": ("failing", (3, 0.0)),
    "undoing": ("undoing", ("undoing", 3, "fails", 0.0)),
    "limited": ("limited", (2, 0.0)),
    "receiving": ("receiving", (2, 0.0)),
    "conversing": ("conversing", (2, 0.0)),
    "listening": ("listening", (-1, 0.0)),
    "looping": ("looping", (2, True, "dead_letter", 1)),
    "raising": ("looping", (1, True, "raise", 1)),
}
"""By id: the workload and the arguments."""

WRITTEN = {
    "listening": ("chat", ["a 0", "b 0", "a 1", "b 1"]),
    "looping": ("work", ["a 4", "a 5", "a 6", "b 6", "a 7"]),
    "raising": ("work", ["a 5", "a 6", "a 7"]),
}
"""What writers write to their inputs."""


SENT = {"receiving": ["a 0", "b 0", "a 1", "a 2", "b 1", END]}
"""The messages to them."""

ANSWERED = {"conversing": {0: "a 0", 1: "b 1"}}
"""The answers to their tokens: the second one is a rejection."""


def run_all(url: str) -> None:
    """Runs all of them."""
    with Engine(url, executes=False) as client:
        handles = [
            client.start(WORKLOADS[workload].options(workflow_id=workflow_id, queue=QUEUE), *args)
            for workflow_id, (workload, args) in RUNS.items()
        ]
        for workflow_id, (key, values) in WRITTEN.items():  # before they run, so that none is refused
            for value in values:
                client.write_stream(workflow_id, key, value)
            client.close_stream(workflow_id, key)
        for workflow_id, values in SENT.items():
            for value in values:
                client.send(workflow_id, value, TOPIC)
        with Engine(url, block_values=1, compact_every=None) as engine:
            Thread(target=engine.run_worker, args=(QUEUE,), daemon=True).start()
            for workflow_id, answers in ANSWERED.items():
                _answer(client, workflow_id, answers)
            for handle in handles:
                with suppress(ValueError):  # the one that fails
                    handle.result()


def _answer(client: Engine, workflow_id: str, answers: dict[int, str]) -> None:
    for number, answer in answers.items():
        token = client.get_event(workflow_id, token_event(number))
        (client.reject if answer.startswith("b") else client.resolve)(token, answer)
    for number in answers:
        assert client.ask(workflow_id, number, ASKED) == reply_to(number)


def run_history() -> RunHistory:
    """What writers were acknowledged."""
    values = {workflow_id: values for workflow_id, (_, values) in WRITTEN.items()} | SENT
    return RunHistory(
        written={
            workflow_id: WriteHistory({value: offset for offset, value in enumerate(written)})
            for workflow_id, written in values.items()
        },
        answered={
            workflow_id: AnswerHistory({**answers}, {number: reply_to(number) for number in answers})
            for workflow_id, answers in ANSWERED.items()
        },
    )


def corrupt(url: str, statement: LiteralString) -> None:
    """Changes what the database holds, as only a fault could."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(statement).rowcount > 0


def delete_blocks(workflow_id: LiteralString, key: LiteralString, where: LiteralString = "true") -> LiteralString:
    """The statement that removes blocks of a stream."""
    return f"DELETE FROM dbosflow.stream_block WHERE workflow_id = '{workflow_id}' AND key = '{key}' AND {where}"


def change_blocks(
    workflow_id: LiteralString, key: LiteralString, change: LiteralString, where: LiteralString = "true"
) -> LiteralString:
    """The statement that changes blocks of a stream."""
    blocks: LiteralString = f"workflow_id = '{workflow_id}' AND key = '{key}' AND {where}"
    return f"UPDATE dbosflow.stream_block SET {change} WHERE {blocks}"


def record_again(workflow_id: LiteralString, where: LiteralString) -> LiteralString:
    """The statement that records a step of a workflow a second time."""
    return f"""
        INSERT INTO dbosflow.step
        SELECT workflow_id, 'again', kind, epoch, 99, turn, attempt, output, error, child_id, wake_at, started_at,
               recorded_at, loop_key, loop_offset, loop_next
        FROM dbosflow.step WHERE workflow_id = '{workflow_id}' AND {where}"""


def check_reported(url: str, statement: LiteralString, expected: str) -> None:
    """Corrupts the database with the statement, and asserts that a checker reports just that."""
    corrupt(url, statement)
    assert any(expected in what for what in violations(url)), violations(url)


def violations(url: str, known: RunHistory | None = None) -> list[str]:
    """What the checkers report of all workflows."""
    known = known or run_history()
    return [what for history in histories(url) for what in check_workflow(history, expected_of(history, known), known)]


def history_of(url: str, workflow_id: str) -> WorkflowHistory:
    """One of the workflows."""
    return next(history for history in histories(url) if history.workflow_id == workflow_id)

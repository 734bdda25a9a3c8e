"""``send`` inside a workflow: the message first, under a name that follows from the operation, then its record.

So a replay sends nothing, and the order of a sender's messages holds. If the worker dies in between, the next one sends
again, and finds the message by its name. As with a step, a message can be seen whose record is lost: what the body did
next may then be something else, and the message stays.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import of_sender, sent_key
from dbosflow._runtime.operations.ahead import until_durable
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.runs.entries import Record
from dbosflow.errors import DbosflowError, EngineClosedError, WorkflowError
from dbosflow.failures import dump_error, load_error

if TYPE_CHECKING:
    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import RunBranch, StepAttempt

_NAME = "send"


async def send(branch: RunBranch, workflow_id: str, topic: str, text: str) -> int:
    """Sends a message from a workflow's body; returns its offset."""
    run, kind = branch.run, RecordKind.SEND
    what = f"a message on topic {topic!r} to workflow {workflow_id!r}"
    async with DurableOperation(branch, kind, _NAME, f"send({workflow_id!r}, ...)") as operation:
        key = operation.key

        async def live() -> Record:
            output: dict[str, Any] = {"topic": topic}
            error = None
            await until_durable(operation.driver, run)
            try:
                work = run.engine.send(workflow_id, topic, text, of_sender(run.workflow_id, key))
                output |= {"offset": await operation.driver.wait(run, work)}
            except EngineClosedError:  # no outcome: the next owner sends
                raise
            except DbosflowError as refused:
                error = dump_error(refused)
            return Record(key, kind, child_id=workflow_id, output=json.dumps(output), error=error)

        found = await operation.outcome(live)
        there = json.loads(found.output or "{}")
        same_receiver = found.child_id == workflow_id or run.history.is_copied(operation.record)
        if not same_receiver or there.get("topic") != topic:
            other = f"one on topic {there.get('topic')!r} to workflow {found.child_id!r}"
            raise run.disagree(f"sends {what} at key {key!r}", other, operation.record)
    if found.error is not None:
        failed = load_error(found.error)
        raise failed.exception or WorkflowError(workflow_id, failed.message)
    return int(there["offset"])


async def send_from_step(attempt: StepAttempt, driver: Driver, workflow_id: str, topic: str, text: str) -> int:
    """Sends a message from a step: the nth one of any attempt is sent once."""
    run = attempt.run
    run.check_may_write(attempt)
    await until_durable(driver, run)
    producer = of_sender(run.workflow_id, sent_key(attempt.key, attempt.count_sent()))
    return await driver.wait(run, run.engine.send(workflow_id, topic, text, producer))

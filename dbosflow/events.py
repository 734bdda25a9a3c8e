"""Events: named values that a workflow sets, and that anybody reads; the last one counts."""

from __future__ import annotations

from typing import Any

from dbosflow._records.spaces import check_event, event_key
from dbosflow._runtime.execution.drivers import drive
from dbosflow._runtime.operations import writing
from dbosflow._runtime.process.host import refuse_on_loop
from dbosflow.serde import dump_undeclared

_VALUE = "an event's value"
"""What errors call it."""


def set_event(name: str, value: Any) -> None:
    """Sets an event of the running workflow, in a sync workflow or step.

    See ``set_event_async``, its awaitable twin, for what that guarantees, and for the errors.
    """
    refuse_on_loop("await set_event_async(...)")
    scope, key = writing.writer("set_event"), event_key(check_event(name))
    drive(writing.write(scope, key, dump_undeclared(value, _VALUE), "set_event", on_loop=False))


async def set_event_async(name: str, value: Any) -> None:
    """Sets an event of the running workflow: ``engine.get_event`` returns the last value.

    An event is written like a value of a stream: the call returns when the value is buffered, and the value becomes
    durable with or before the workflow's next record. A body sets each value once, whatever crashes. What a step sets
    shows at once, and is taken back if the attempt does not succeed: then the value before counts again. An event keeps
    its last value when the workflow has ended. Earlier values are kept, too, and are not counted against
    ``stream_values`` and ``stream_bytes``.

    Args:
        name: the event's name: a text of 1 to 472 bytes in UTF-8.
        value: a value that JSON can carry as one of its class.

    Raises:
        StreamValueTooLargeError: the JSON of ``value`` is larger than ``value_bytes``.
        StreamBackPressureError: there was no room within ``buffer_timeout``.
        SerializationError: JSON cannot carry ``value``.
        NotInWorkflowError: no workflow or step is running here.
        BranchError: the caller is no branch of its workflow.
        ConfigurationError: the name is not valid.
    """
    scope, key = writing.writer("set_event_async"), event_key(check_event(name))
    await writing.write(scope, key, dump_undeclared(value, _VALUE), "set_event_async", on_loop=True)

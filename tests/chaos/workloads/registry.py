"""The workloads of a run: its workflows, by name."""

from __future__ import annotations

from typing import Any

from tests.chaos.workloads import basic, inputs, limited_queue, messages, typed_streams, undoing

WORKLOADS: dict[str, Any] = {
    each.definition.name: each
    for each in (
        basic.probing,
        basic.sequence,
        basic.sequence_on_thread,
        basic.branching,
        basic.retrying,
        basic.family,
        basic.family_on_thread,
        basic.failing,
        basic.dozing,
        basic.dozing_on_thread,
        typed_streams.resuming,
        typed_streams.resuming_on_thread,
        inputs.listening,
        inputs.listening_on_thread,
        inputs.looping,
        inputs.looping_on_thread,
        inputs.following,
        messages.receiving,
        messages.receiving_on_thread,
        messages.conversing,
        messages.conversing_on_thread,
        limited_queue.limited,
        limited_queue.limited_on_thread,
        undoing.undoing,
        undoing.undoing_on_thread,
    )
}

"""The workflows of a run by name."""

from __future__ import annotations

from typing import Any

from tests.chaos import workload, workload_inputs, workload_narrow, workload_typed

SHAPES: dict[str, Any] = {
    each.definition.name: each
    for each in (
        workload.probing,
        workload.sequence,
        workload.sequence_on_thread,
        workload.branching,
        workload.retrying,
        workload.family,
        workload.family_on_thread,
        workload.failing,
        workload.dozing,
        workload.dozing_on_thread,
        workload_typed.resuming,
        workload_typed.resuming_on_thread,
        workload_inputs.listening,
        workload_inputs.listening_on_thread,
        workload_inputs.looping,
        workload_inputs.looping_on_thread,
        workload_inputs.following,
        workload_narrow.narrow,
        workload_narrow.narrow_on_thread,
    )
}

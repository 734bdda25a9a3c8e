"""Which code a run takes where the code has changed: the old path as long as its records come from the old code.

A patch is identified by its branch, its name, and the number of the call with that name. If new code was taken, that is
on record, in no turn and on no branch's list; so the call, and the old path with it, can be deleted once no workflow of
the old code is left. If old code was taken, no record is needed. What caused that decision (a turn to come, an
operation that the branch has still to repeat, or a value that any branch has) causes the same one in each later replay,
since records are never deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import is_of_step
from dbosflow._runtime.runs.entries import Record

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run, RunBranch


def patched(branch: RunBranch, name: str) -> bool:
    """Whether the caller is to take new code. Waits for nothing."""
    run = branch.run
    run.check_may_begin()
    branch.check_owner(f"patched({name!r})")
    key = branch.patch_key(name)
    if run.recorded(key) is not None:
        return True
    if run.environment.has_ended or run.is_replaying or run.next_of(branch.path) is not None or _values_to_come(run):
        return False
    if run.was_undone:  # by the old code: it failed on this path
        return False
    run.append(Record(key, RecordKind.PATCHED))
    return True


def _values_to_come(run: Run) -> bool:
    """Whether any branch has recorded values still to write again: they may follow from this decision."""
    history = run.history
    return any(
        not is_of_step(producer) and producer not in history.loops and run.streams.count(key, producer) < count
        for (key, producer), count in history.produced.items()
    )

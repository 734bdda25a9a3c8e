"""The opening of a run: what its body does until it waits for the first time, before the workflow has a row.

Where nobody knows the id of a workflow before its result, its body may begin before its start is durable:

```text
launched ──► opening ──┬─ ended, and nothing of it is awaited ──► start, records, values and end in one statement
                       └─ waits, or anything else ──► start written ──► durable: what is in the buffer goes out, and
                                                                        the operations that wait begin
the run is stopped meanwhile ──► start written ──► durable: another run begins from the first line of the body
the end is refused ──► start written without it ──► the same, and the next refusal is the workflow's failure
the process dies ──► there is no workflow, and nobody has been told of one
```

A body on a thread is watched by the loop: it waits when it asks for an operation, and its opening is over after a few
milliseconds in any case. Where openings of a workflow are mostly for nothing, most of its runs begin without one.

A child that is waited for begins in the same way. Its start goes with its parent's record of it, and both are there or
neither is: see ``openings``.

Until the start is durable, the journal takes nothing of the run, and every operation of it waits that another one could
notice: no step begins, no child, and no message goes out. So a body whose opening is forgotten, or repeated, has done
nothing but what it does in each replay, and relaxed steps.

Those begin: a crash may forget what they came to, here with the workflow. So up to its first wait a body comes
to as many outcomes as it may have ahead, and if it ends there, all is one statement, as far as one batch takes it. A
step that fails waits for its record, and so for the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.runs.entries import Ending, Waiter, Whole

    WriteStart = Callable[[Ending | None, Whole | None], None]
    """Writes a start: with the end and all between the two, or with ``None``."""


class Opening:
    """The opening of one run, on the loop. ``write`` writes the start, once."""

    __slots__ = ("_is_told", "_stopping", "_waiters", "_write", "ending", "whole")

    def __init__(self, write: WriteStart) -> None:
        self._write: WriteStart | None = write
        self._waiters: tuple[Waiter, ...] = ()
        self._is_told = False
        """Whether operations may begin, or never will."""
        self._stopping: BaseException | None = None
        self.ending: Ending | None = None
        """The end of the workflow, if that is written with its start."""
        self.whole: Whole | None = None
        """What is written between the two, if there is anything."""

    @property
    def is_over(self) -> bool:
        """Whether the start is written, or about to be."""
        return self._write is None

    def end(self, ending: Ending | None = None, whole: Whole | None = None) -> bool:
        """Has the start written, unless it was before; returns whether that was now."""
        write, self._write = self._write, None
        if write is None:
            return False
        self.ending, self.whole = ending, whole
        write(ending, whole)
        return True

    def expect(self, waiter: Waiter) -> None:
        """Has the start written, and notifies ``waiter`` when it is durable, or when the run has stopped."""
        self.end()
        self._waiters = (*self._waiters, waiter)
        if self._is_told:
            self._tell()

    def start_is_durable(self) -> None:
        """Lets the operations begin that wait for the start."""
        self._is_told = True
        self._tell()

    def stop(self, stopping: BaseException) -> None:
        """The run was stopped: its start is written all the same, and the operations that wait for it do not begin."""
        self.end()
        self._is_told, self._stopping, self.whole = True, stopping, None  # which refers to the run
        self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if waiter.done():
                continue
            if self._stopping is not None:
                waiter.set_exception(self._stopping)
            else:
                waiter.set_result(None)

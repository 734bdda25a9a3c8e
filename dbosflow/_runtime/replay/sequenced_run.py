"""What the sequencer asks of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
    from dbosflow._runtime.replay.plain_timers import PlainTimers
    from dbosflow._runtime.replay.recorded_order import RecordedOrder
    from dbosflow._runtime.runs.buffer import Buffer
    from dbosflow._runtime.runs.state import RunStopped
    from dbosflow._store.step import History
    from dbosflow.config import Settings


class SequencedRun(Protocol):
    """A run whose outcomes are delivered by turns: see ``replaying_run``."""

    resumption_event: asyncio.Event | None
    """Set when code of the run is resumed, while the sequencer watches."""

    @property
    def workflow_id(self) -> str:
        """The workflow's id."""

    @property
    def settings(self) -> Settings:
        """The engine's settings."""

    @property
    def history(self) -> History:
        """The run's records."""

    @property
    def recorded_order(self) -> RecordedOrder | None:
        """The branches' records that have not been asked for yet."""

    @property
    def replayed(self) -> Collection[str]:
        """The keys of the records that were replayed while the run had one branch."""

    @property
    def buffer(self) -> Buffer:
        """What the run has for the journal."""

    @property
    def coroutines(self) -> Collection[BranchCoroutine]:
        """The run's coroutines: the body's, and those of its other branches."""

    @property
    def resumptions(self) -> int:
        """The number of resumptions of the run's coroutines."""

    @property
    def timers(self) -> PlainTimers | None:
        """The plain timers that the run's code has set, while the run replays."""

    @property
    def stopping(self) -> RunStopped | None:
        """Why the run is stopped."""

    @property
    def gets_no_further(self) -> bool:
        """Whether the run's code begins no operation any more."""

    async def room(self) -> bool:
        """Waits for room in the run's buffer; returns whether there is room in time."""

    def submit(self) -> None:
        """Notifies the journal that the run has pending entries."""

    def replay_is_over(self) -> None:
        """Everything on record is delivered."""

    def disagree(self, asked: str, there: str, record: str | None = None) -> BaseException:
        """Ends this pass because code and records disagree."""

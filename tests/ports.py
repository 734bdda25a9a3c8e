"""What stands around a run that asks for none of it: each says so if it is asked all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.waits import Waits
    from dbosflow._runtime.repository import Repository
    from dbosflow._runtime.runs.start_request import StartRequest
    from dbosflow._runtime.streams.hub import SeenStatus
    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.step import History
    from dbosflow._store.used_units import UsedUnits
    from dbosflow.definitions import WorkflowDef
    from dbosflow.errors import CodecError


class NoEngine:
    """An engine for runs that have no children, wait for no workflow, and read no stream."""

    @property
    def patient_repository(self) -> Repository:
        raise AssertionError

    @property
    def waits(self) -> Waits:
        raise AssertionError

    def is_of(self, engine: object) -> bool:
        raise AssertionError(engine)

    def launch_child(self, workflow_id: str, request: StartRequest, arguments_text: str, *, has_deadline: bool) -> None:
        raise AssertionError(workflow_id)

    def may_open(self, request: StartRequest) -> NoReturn:
        raise AssertionError(request)

    def open_child(self, workflow_id: str, request: StartRequest, arguments_text: str) -> NoReturn:
        raise AssertionError(workflow_id)

    async def find_child(self, workflow_id: str, definition: WorkflowDef) -> NoReturn:
        raise AssertionError(workflow_id)

    def cursor(self, request: ReadRequest) -> NoReturn:
        raise AssertionError(request)

    async def read_page(self, workflow_id: str, key: str, offset: int, known: SeenStatus) -> NoReturn:
        raise AssertionError(workflow_id, key)

    async def send(self, workflow_id: str, topic: str, text: str, producer: str | None) -> NoReturn:
        raise AssertionError(workflow_id, topic)

    async def use(self, used: UsedUnits) -> None:
        raise AssertionError(used)

    def remove_received(self, workflow_id: str, key: str, before: int, removed: Callable[[int], None]) -> None:
        raise AssertionError(workflow_id, key)

    async def outcome(self, workflow_id: str, *, ended: bool = False) -> NoReturn:
        raise AssertionError(workflow_id)

    async def cancel(self, workflow_id: str, children: bool, reason: str | None) -> NoReturn:  # noqa: FBT001
        raise AssertionError(workflow_id)

    async def cancel_children(self, workflow_id: str, request: CancelRequest | None) -> None:
        raise AssertionError(workflow_id)

    def handle(self, workflow_id: str, definition: WorkflowDef | None) -> NoReturn:
        raise AssertionError(workflow_id)


class EndlessLease:
    """A lease that is never over."""

    in_time = True


class SoleOwner:
    """Ownership that nobody contests: no run is reloaded, or given up."""

    async def renew(self, run: Run) -> int | None:
        raise AssertionError(run)

    async def put_off(self, run: Run, why: CodecError) -> None:
        raise AssertionError(run) from why

    async def release(self, runs: list[Run]) -> None:
        raise AssertionError(runs)


class NoHistories:
    """For a runner whose runs are launched with their history."""

    async def read(self, ids: list[str]) -> dict[str, History | Exception]:
        raise AssertionError(ids)

    def close(self) -> None:
        """There is nothing to close."""

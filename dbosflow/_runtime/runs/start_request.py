"""A request to start a workflow, by an engine or as a child: one object from the public call to the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import stored_queue
from dbosflow._store.start_options import NO_OPTIONS
from dbosflow.config import DEFAULT_QUEUE
from dbosflow.errors import ConfigurationError, InWorkflowError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._store.start_options import Dedup, StartOptions
    from dbosflow._store.workflow import FirstMessage
    from dbosflow.definitions import WorkflowDef


@dataclass(slots=True, eq=False)
class StartRequest:
    """A request to start a workflow."""

    definition: WorkflowDef
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    workflow_id: str | None = None
    """The workflow's id; ``None`` for a new one."""
    queue: str | None = None
    """The queue; ``None`` for this process, if it executes workflows, else for the default queue."""
    priority: int = 0
    options: StartOptions | None = None
    """What most starts do not set."""
    message: FirstMessage | None = None
    """A message to the workflow, whether it is new or not."""
    pin: bool | str | None = None
    """The version to pin it to; ``True``: the engine's; ``None``: as the workflow that starts it; ``False``: none."""
    dedup: Dedup | None = None
    """Its key, if only one at a time may have it."""
    partition_key: str | None = None
    """The partition of the queue, if it has one."""
    version: str | None = None
    """What that means for this start, once it is decided."""

    def __post_init__(self) -> None:
        timeout = self.definition.timeout
        if timeout is not None:
            options = self.options or NO_OPTIONS
            if options.timeout is None:
                self.options = options._replace(timeout=timeout)
        if self.definition.max_recoveries is not None:
            options = self.options or NO_OPTIONS
            self.options = options._replace(max_recoveries=self.definition.max_recoveries)

    def decide_version(self, own: str | None, inherited: str | None = None) -> None:
        """Decides to which version the workflow is pinned, started by an engine that carries ``own``."""
        if self.pin is True and own is None:
            msg = "pin_version=True pins to the engine's version, and it has none: give Engine(version=...)"
            raise ConfigurationError(msg)
        self.version = inherited if self.pin is None else own if self.pin is True else self.pin or None

    def is_for(self, own: str | None) -> bool:
        """Whether a process that carries ``own`` may run it itself."""
        return self.queue is None and self.version in {None, own}

    @property
    def is_scheduled(self) -> bool:
        """Whether it waits for a time before it begins, as a row that nobody owns."""
        return self.options is not None and self.options.is_scheduled

    @property
    def stored_queue(self) -> str:
        """Where it waits if it is enqueued."""
        return stored_queue(self.queue or DEFAULT_QUEUE, self.version, self.partition_key)

    @property
    def recovery_queue(self) -> str:
        """Where it waits if it is started in a process that dies."""
        return stored_queue("", self.version)

    def refuse_as_child(self) -> None:
        """Raises an ``InWorkflowError`` if it has a key: a child is started by the record of its parent."""
        if self.dedup is not None:
            msg = (
                f"a workflow's body starts no child with a dedup_key ({self.dedup.key!r}): start it in a step, with "
                "engine.start(...), where it is no child"
            )
            raise InWorkflowError(msg)

    def is_urgent(self, seconds: float) -> bool:
        """Whether the workflow's time or deadline comes so soon that other processes are told of it."""
        return self.options is not None and self.options.is_urgent(seconds)

    def arguments_text(self) -> str:
        """The arguments in their stored form."""
        return self.definition.dump_arguments(self.args, dict(self.kwargs))

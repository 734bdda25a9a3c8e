"""Transcripts: what one execution of a workflow and its children did, under names that are equal in all executions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow import serde
from dbosflow._records.keys import attempt_of, child_id, is_own, step_of
from dbosflow._records.kinds import STEPS, RecordKind
from dbosflow._records.producers import RESUMED, is_of_step
from dbosflow._records.spaces import is_from_outside
from dbosflow.errors import SerializationError
from dbosflow.testing.points import operations, starts, values
from dbosflow.testing.recording import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch
    from dbosflow.definitions import FunctionDef
    from dbosflow.testing.points import DurableOperation
    from dbosflow.types import StepInfo, StreamInfo

Place = tuple[str, str]
"""A workflow's name and a record's key."""


class Source(NamedTuple):
    """A stream and the producer of values in it."""

    key: str
    producer: str
    """The path of a branch, or the key of a step: only one of its attempts can be committed."""
    is_step: bool


_ASKED_FOR = frozenset(
    {
        *(
            *STEPS,
            RecordKind.SLEEP,
            RecordKind.CHILD,
            RecordKind.RESULT,
            RecordKind.READ,
            RecordKind.FOR_EACH,
        ),
        *(RecordKind.RECV, RecordKind.SEND, RecordKind.TOKEN, RecordKind.ANSWER, RecordKind.USE),
        *(RecordKind.MAP, RecordKind.FIRST),
    }
)
"""Of operations that a body asks for, however fast its replay is."""


@dataclass(slots=True)
class Ended:
    """How a workflow ended, and the values in its streams that can no longer be rolled back."""

    status: str
    result: str | None
    error: str | None
    states: dict[str, str] = field(default_factory=dict)
    """How each stream ended."""
    values: dict[Source, list[str]] = field(default_factory=dict)
    """The committed values of each producer, as JSON."""


@dataclass(slots=True)
class Memory:
    """What the first execution has shown of its steps, for the later ones.

    A step may return another value each time; that is what steps are for. To make sure that only the body can make a
    difference, each step returns the same value in every execution. Its own body runs nevertheless.
    """

    outcomes: dict[Place, str] = field(default_factory=dict)
    arguments: dict[Place, tuple[str, ...]] = field(default_factory=dict)


class Transcript(Recorder):
    """One execution as its engine reports it."""

    def __init__(self, workflow_id: str, name: str, memory: Memory) -> None:
        self._names = {workflow_id: name}
        self._memory = memory
        self._durable: dict[tuple[str, str, str], dict[int, str]] = {}
        self._unasked: dict[str, set[str]] = {}
        self._opened: dict[str, str] = {}
        """The names that children will have whose bodies have begun before their starts are durable, by id."""
        self._inputs: dict[str, Collection[str]] = {}
        """The streams of each workflow that has run which only outsiders write to."""
        self.operations: dict[DurableOperation, None] = {}
        """The operations that became durable, in order."""
        self.differences: list[str] = []
        """What a body did otherwise than before, in this execution or in the first one."""
        self.on_queue: Callable[[str], None] = lambda _: None
        """Called with the name of each queue that a child was started on."""

    def name_of(self, workflow_id: str) -> str:
        """The name of a workflow of this execution. For any other workflow, its id."""
        return self._names.get(workflow_id) or self._opened.get(workflow_id, workflow_id)

    # -- called by the engine ----------------------------------------------------------------------------------------

    def launched(self, run: Run) -> None:
        """A run is about to begin."""
        if run.workflow_id not in self._names and (parent_id := self._parent_of(run.workflow_id)) is not None:
            self._opened[run.workflow_id] = self._names[parent_id] + run.workflow_id.removeprefix(parent_id)
        self._inputs[run.workflow_id] = run.inputs
        if run.workflow_id in self._names or run.workflow_id in self._opened:
            self.attach(run)
            self._unasked[self.name_of(run.workflow_id)] = {
                record.key for record in run.history.records.values() if is_asked_for(record.key, record.kind)
            }

    def _parent_of(self, workflow_id: str) -> str | None:
        """The workflow of this execution that the id of a child is made of."""
        parents = [one for one in self._names if workflow_id.startswith(f"{one}/")]
        return max(parents, key=len, default=None)

    def committed(self, batch: Batch[Run]) -> None:
        """A batch is durable."""
        for start in starts(batch):
            if start.parent_id in self._names:
                parent_id, key = start.parent_id, str(start.parent_key)
                own = start.workflow_id == child_id(parent_id, key)
                name = f"{self._names[parent_id]}/{key}" if own else start.workflow_id
                self._names.setdefault(start.workflow_id, name)
                if start.queue and not start.owned:
                    self.on_queue(start.queue)
        for operation in operations(batch):
            if operation.workflow_id in self._names:
                self.operations[replace(operation, workflow_id=self._names[operation.workflow_id])] = None
        for part in batch.parts():
            for written in values(part):
                durable = self._durable.setdefault((part.run.workflow_id, written.key, written.producer), {})
                durable.update(enumerate(written.texts, written.producer_seq))

    def skipped(self, run: Run, key: str, producer: str, count: int, text: str) -> None:
        """A replay has passed a durable value. It must be the same one."""
        durable = self._durable.get((run.workflow_id, key, producer), {}).get(count)
        if durable is not None and durable != text:
            where = f"value {count} of stream {key!r} of workflow {self.name_of(run.workflow_id)!r}"
            self.differences.append(shown(where, durable, text, first="on record", then="replayed"))

    def replayed(self, run: Run, key: str) -> None:
        """A replay has used a record."""
        self._unasked.get(self.name_of(run.workflow_id), set()).discard(key)

    def called(self, run: Run, key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The body of a step is about to run."""
        place = (self.name_of(run.workflow_id), key)
        given = tuple(self._masked(text) for text in _dumped(args, kwargs))
        known = self._memory.arguments.setdefault(place, given)
        if known != given:
            where = f"the arguments of step {key!r} of workflow {place[0]!r}"
            self.differences.append(shown(where, ", ".join(known), ", ".join(given)))

    def returned(self, run: Run, key: str, function: FunctionDef, value: Any) -> Any:
        """The body of a step has returned. Returns what the step's caller gets."""
        try:
            text = function.result.dump(value)
        except SerializationError:
            return value  # the engine will refuse it
        text = self._memory.outcomes.setdefault((self.name_of(run.workflow_id), key), self._masked(text))
        return function.result.load(self._unmasked(text))

    def drawn(self, run: Run, key: str, text: str) -> str:
        """The body has drawn a value: each execution draws the same ones, so that only the code makes a difference."""
        return self._memory.outcomes.setdefault((self.name_of(run.workflow_id), key), text)

    # -- how it ended ------------------------------------------------------------------------------------------------

    async def ended(self, core: EngineCore) -> dict[str, Ended]:
        """Waits until all workflows have ended or are parked; how each one ended, by its name."""
        found: dict[str, Ended] = {}
        while left := [workflow_id for workflow_id, name in self._names.items() if name not in found]:
            for workflow_id in left:
                await core.outcome(workflow_id)
                found[self._names[workflow_id]] = await self._ended(core, workflow_id)
        for name, ended in found.items():
            if ended.status == "succeeded" and (left := sorted(self._unasked.get(name, ()))):
                self.differences.append(f"records of workflow {name!r} that its replay never asked for: {left}")
        return found

    async def _ended(self, core: EngineCore, workflow_id: str) -> Ended:
        info = await core.repository.info(workflow_id)
        error: Any = info.error
        text = None if error is None else f"{error.get('type')}: {error.get('message')}"
        ended = Ended(str(info.status), self._masked(json.dumps(info.output)), text and self._masked(text))
        steps = await core.repository.steps(workflow_id)
        for stream in await core.repository.streams(workflow_id, reserved=True):
            if is_from_outside(stream.key):
                continue
            ended.states[stream.key] = str(stream.state)
            if stream.key in self._inputs.get(workflow_id, (stream.key,)):
                continue
            for source, producer in _committed(stream, steps):
                pages = await core.repository.emitted(workflow_id, stream.key, producer)
                found = [self._masked(json.dumps(value)) for page in pages for value in json.loads(page)]
                ended.values.setdefault(source, []).extend(found)
        return ended

    def _masked(self, text: str) -> str:
        """A text with the names of the workflows in place of their ids, which differ between executions."""
        for workflow_id, name in sorted(self._names.items(), key=lambda one: -len(one[0])):
            text = text.replace(workflow_id, f"<id of {name}>")
        return text

    def _unmasked(self, text: str) -> str:
        for workflow_id, name in self._names.items():
            text = text.replace(f"<id of {name}>", workflow_id)
        return text


def differences(
    first: Mapping[str, Ended], then: Mapping[str, Ended], label: str = "crashed"
) -> dict[tuple[str, Source | None], str]:
    """The differences between two executions: by workflow, and by source if they are about a producer's values."""
    found: dict[tuple[str, Source | None], str] = {}
    for name in sorted(first.keys() | then.keys()):
        one, other = first.get(name), then.get(name)
        if one is None or other is None:
            seen = ("it ran", "it was not started")
            found[name, None] = shown(f"workflow {name!r}", *(seen if other is None else reversed(seen)), then=label)
            continue
        how = [(part, getattr(one, part), getattr(other, part)) for part in ("status", "result", "error")]
        how += [(f"the end of stream {key!r}", *_both(one.states, other.states, key)) for key in one.states]
        how += [(f"stream {key!r}", "not there", "there") for key in other.states.keys() - one.states.keys()]
        texts = [
            shown(f"{what} of workflow {name!r}", before, now, then=label) for what, before, now in how if before != now
        ]
        if texts:
            found[name, None] = "\n- ".join(texts)
        for source in one.values.keys() | other.values.keys():
            before, now = one.values.get(source, []), other.values.get(source, [])
            if before != now:
                found[name, source] = _of_values(name, source, (before, now), label)
    return found


def shown(what: str, before: object, now: object, *, first: str = "undisturbed", then: str = "crashed") -> str:
    """A difference, with the two values below each other."""
    width = max(len(first), len(then)) + 1
    return f"{what}:\n    {first + ':':{width}} {before}\n    {then + ':':{width}} {now}"


def is_asked_for(key: str, kind: str) -> bool:
    """Whether every replay of the same code uses the record: the body's own operations, but not those of tasks."""
    return is_own(key) and kind in _ASKED_FOR


def _of_values(name: str, source: Source, values: tuple[list[str], list[str]], label: str) -> str:
    before, now = values
    key, producer, _ = source
    by = f", written by {producer!r}" if producer else ""
    at = next((at for at, (one, two) in enumerate(zip(before, now, strict=False)) if one != two), None)
    where = f"stream {key!r} of workflow {name!r}{by}"
    if at is None:
        return shown(f"how many values are in {where}", len(before), len(now), then=label)
    return shown(f"value {at} of {where}", before[at], now[at], then=label)


def _both(one: Mapping[str, str], other: Mapping[str, str], key: str) -> tuple[str | None, str | None]:
    return one.get(key), other.get(key)


def _committed(stream: StreamInfo, steps: list[StepInfo]) -> list[tuple[Source, str]]:
    """The producers of a stream whose values are committed, by a record or from the start; each with its source."""
    good = {(step.key, step.attempt) for step in steps if step.kind in STEPS and step.error is None}
    found = []
    for producer in stream.producers:
        if not is_of_step(producer):
            found.append((Source(stream.key, producer, is_step=False), producer))
            continue
        step, attempt = step_of(producer), attempt_of(producer)
        if (step, attempt) in good or (attempt == RESUMED and any(key == step for key, _ in good)):
            found.append((Source(stream.key, step, is_step=True), producer))
    return found


def _dumped(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Arguments as JSON, if that is possible: those of steps may be anything."""
    texts = []
    for name, value in [*enumerate(args), *kwargs.items()]:
        try:
            text = serde.plain.written(value)
        except SerializationError:
            continue
        texts.append(text if isinstance(name, int) else f"{name}={text}")
    return texts

"""The generator: which workflows the clients start, and what they do to each of them, all of it from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.chaos.nemeses.plan import WRITERS
from tests.chaos.workloads.basic import QUEUE
from tests.chaos.workloads.limited_queue import LIMITED_QUEUE
from tests.chaos.workloads.messages import TOPIC

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Writing:
    """What one writer writes to an input of a workflow: the values ``<writer> 0``, ``<writer> 1`` ..."""

    writer: str
    count: int
    wide: int
    """So many writes are under way at a time."""
    pause: float
    """Seconds between the one lot and the next."""
    process: int | None
    """Which writer process does it, with idempotency keys; ``None``: a task of the client, without."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What clients do to one workflow: how to start and to cancel it, what to write to it, which stream to read."""

    workflow_id: str
    workload: str
    args: tuple[Any, ...]
    cancel_after: float | None
    key: str
    reading: str | None
    """``throughout``, ``reconnecting``, ``late``, or nobody does."""
    starters: int
    """So many start it at once, under the one id."""
    queue: str = QUEUE
    input: str | None = None
    """The stream that writers write to."""
    topic: str | None = None
    """The topic on which they send messages."""
    answers: int = 0
    """So many tokens are answered, and as many requests sent."""
    writings: tuple[Writing, ...] = ()
    timeout: float | None = None
    """The seconds until its deadline."""
    reason: str | None = None
    """The reason that its cancel gives."""
    trims: str | None = None
    """The stream whose beginning is removed while the workflow runs: its ``key``, or the ``input`` of a loop."""


def operations(seed: int) -> Iterator[Operation]:
    """The operations of a run, without end."""
    for number in count():
        yield operation(seed, number)


def operation(seed: int, number: int) -> Operation:
    """One of them."""
    draw = random.Random(f"job {seed} {number}")  # another word would be other workflows for an old seed
    workload, args, key = _workload(draw)
    me, is_undone = f"c{number:06}", workload.startswith("undoing")
    args = (me, *args) if is_undone else args
    for_ever = workload.startswith("dozing") or (is_undone and "is cancelled" in args)
    cancelled = for_ever or draw.random() < 0.07
    reading = draw.choice(["throughout", "reconnecting", "late", None, None])
    taken, topic = _INPUTS.get(workload), TOPIC if workload.startswith("receiving") else None
    return Operation(
        workflow_id=me,
        workload=workload,
        args=args,
        cancel_after=draw.uniform(0.0, 3.0) if cancelled else None,
        key=key,
        reading=reading,
        starters=draw.choice([1, 1, 1, 1, 3]),
        queue=LIMITED_QUEUE if workload.startswith("limited") else QUEUE,
        input=taken,
        topic=topic,
        answers=args[0] if workload.startswith("conversing") else 0,
        writings=tuple(_writings(draw)) if taken or topic else (),
        timeout=draw.uniform(0.3, 4.0) if is_undone and "is late" in args else None,
        reason=draw.choice([None, f"nobody wants {me}"]),
        trims=_trims(draw, workload, key, reading),
    )


_INPUTS = {"listening": "chat", "listening_on_thread": "chat", "looping": "work", "looping_on_thread": "work"}
_TRIMMED = {"sequence": 0.4, "sequence_on_thread": 0.4, "retrying": 0.8, "looping": 0.4, "looping_on_thread": 0.4}
"""How probably a stream of these is trimmed."""


def _writings(draw: random.Random) -> Iterator[Writing]:
    for writer in "abc"[: draw.randint(1, 3)]:
        yield Writing(
            writer=writer,
            count=draw.randint(1, 25),
            wide=draw.randint(1, 8),
            pause=draw.choice([0.0, 0.05, 0.3]),
            process=draw.choice([*range(WRITERS), None]),
        )


def _trims(draw: random.Random, workload: str, key: str, reading: str | None) -> str | None:
    if draw.random() > _TRIMMED.get(workload, 0.0):
        return None
    if workload.startswith("looping"):
        return _INPUTS[workload]
    if workload == "retrying" and reading is not None:  # which of its attempts wrote what is gone, nobody could tell
        return None
    return key


def _workload(draw: random.Random) -> tuple[str, tuple[Any, ...], str]:
    pause = draw.choice([0.0, 0.02, 0.1])
    sequence = (draw.randint(3, 15), pause)
    retrying = (draw.randint(1, 4), draw.randint(1, 20), pause / 3)
    listening = (draw.choice([-1, -1, 10]), pause / 10)
    looping = (draw.randint(1, 4), *draw.choice(_LOOPS), draw.randint(1, 3))
    undoing = (draw.randint(1, 8), draw.choice(["fails", "is late", "is cancelled"]), pause)
    workloads: dict[str, tuple[float, tuple[Any, ...], str]] = {
        "sequence": (4, sequence, draw.choice(["values", "rare"])),
        "sequence_on_thread": (4, sequence, draw.choice(["values", "rare"])),
        "branching": (4, (draw.randint(2, 5), draw.randint(2, 4), pause), draw.choice(["shared", "own 1"])),
        "retrying": (4, retrying, draw.choice(["tokens", "both"])),
        "resuming": (3, retrying, draw.choice(["resumed", "kept", "typed"])),
        "resuming_on_thread": (1, retrying, draw.choice(["resumed", "kept", "typed"])),
        "family": (2, sequence, "values"),
        "family_on_thread": (2, sequence, "values"),
        "following": (2, retrying, "values"),
        "listening": (3, listening, draw.choice(["chat", "heard"])),
        "listening_on_thread": (2, listening, draw.choice(["chat", "heard"])),
        "looping": (3, looping, "effects"),
        "looping_on_thread": (2, looping, "effects"),
        "receiving": (3, (draw.randint(2, 12), pause / 10), "heard"),
        "receiving_on_thread": (2, (draw.randint(2, 12), pause / 10), "heard"),
        "conversing": (3, (draw.randint(1, 4), pause), "values"),
        "conversing_on_thread": (1, (draw.randint(1, 4), pause), "values"),
        "limited": (3, (draw.randint(1, 3), pause), "values"),
        "limited_on_thread": (2, (draw.randint(1, 3), pause), "values"),
        "failing": (2, sequence, "values"),
        "undoing": (3, undoing, "values"),
        "undoing_on_thread": (2, undoing, "values"),
        "dozing": (1, (draw.choice(["asleep", "in a step"]),), "values"),
        "dozing_on_thread": (1, (draw.choice(["asleep", "in a step"]),), "values"),
    }
    workload = draw.choices([*workloads], weights=[weight for weight, *_ in workloads.values()])[0]
    return workload, *workloads[workload][1:]


_LOOPS = [(True, "raise"), *((ordered, to) for ordered in (True, False) for to in ("skip", "dead_letter"))]
"""Whether in order, and what becomes of an item that fails; which of them ends a loop only the order can tell."""

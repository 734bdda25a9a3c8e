"""What a schedule is, in the form in which it is stored; and the schedules that the code of this process declares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dbosflow.errors import DefinitionError
from dbosflow.ticks import ticks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow.ticks import Ticks
    from dbosflow.types import Overlap


@dataclass(frozen=True)
class ScheduleDef:
    """A schedule: what each tick starts, and when."""

    name: str
    workflow: str
    queue: str
    priority: int
    input: str
    """The arguments in their stored form, without the tick."""
    tick_parameter: str | None
    input_streams: tuple[str, ...]
    timeout: float | None
    max_recoveries: int | None
    units: int | None
    attributes: str
    cron: str | None
    every: float | None
    timezone: str
    overlap: Overlap
    catch_up: float
    jitter: float

    @cached_property
    def fingerprint(self) -> str:
        """The same for equal schedules, in every process."""
        values = asdict(self)
        if self.units is None:  # as of versions that know no units
            del values["units"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def ticks(self) -> Ticks:
        """When it starts workflows."""
        return ticks_of(self.cron, self.every, self.timezone)

    def columns(self) -> dict[str, Any]:
        """The columns of its row that code owns."""
        return {**asdict(self), "input_streams": list(self.input_streams) or None, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Declared:
    """A schedule that code declares, and the module in which it does."""

    module: str
    definition: ScheduleDef


class DeclaredSchedules:
    """The schedules that the code of this process declares, by name. The decorator fills ``declared_schedules``.

    A definition is made when it is first asked for: until then the annotations of its workflow may not be complete.
    """

    def __init__(self) -> None:
        self._declared: dict[str, tuple[str, str, Callable[[], ScheduleDef]]] = {}
        self._made: dict[str, Declared] = {}

    def add(self, name: str, workflow: str, module: str, make: Callable[[], ScheduleDef]) -> None:
        """Adds a schedule. A module that is loaded again replaces its own."""
        known = self._declared.get(name)
        if known is not None and known[:2] != (workflow, module):
            msg = (
                f"two schedules are named {name!r}: one of workflow {known[0]!r} in {known[1]}, and one of "
                f"{workflow!r} in {module}; name one of them with @schedule(name=...)"
            )
            raise DefinitionError(msg)
        self._declared[name] = (workflow, module, make)
        self._made.pop(name, None)

    def all(self) -> dict[str, Declared]:
        """The schedules. Raises what is wrong with one."""
        for name, (_, module, make) in self._declared.items():
            if name not in self._made:
                self._made[name] = Declared(module, make())
        return dict(self._made)

    def fingerprints(self) -> str:
        """A JSON object of the fingerprints by name, for the worker's row."""
        return json.dumps({name: one.definition.fingerprint for name, one in sorted(self.all().items())})


declared_schedules = DeclaredSchedules()

"""The registry of workflows: what this process can run.

A row in the database names a workflow, and the registry has the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow.errors import DefinitionError
from dbosflow.functions import Site, where

if TYPE_CHECKING:
    from dbosflow.definitions import WorkflowDef


class Registry:
    """The workflows that this process knows, by name. The decorators fill the instance ``registry``."""

    def __init__(self) -> None:
        self._workflows: dict[str, WorkflowDef] = {}
        self._sites: dict[str, Site] = {}

    def add(self, definition: WorkflowDef) -> None:
        """Adds a workflow. A redefinition replaces the old one; another function under the same name is an error."""
        site, known = Site(definition.function), self._sites.get(definition.name)
        if known is not None and not known.gives_way_to(site):
            both = f"{where(self._workflows[definition.name].function)} and {where(definition.function)}"
            msg = (
                f"two functions are workflows under the name {definition.name!r}: {both}; "
                "name one of them with @workflow(name=...)"
            )
            raise DefinitionError(msg)
        self._workflows[definition.name], self._sites[definition.name] = definition, site

    def get(self, name: str) -> WorkflowDef | None:
        """The workflow of the given name, or ``None`` if this process does not know it."""
        return self._workflows.get(name)

    def names(self) -> list[str]:
        """The names of all workflows that this process can run."""
        return list(self._workflows)


registry = Registry()

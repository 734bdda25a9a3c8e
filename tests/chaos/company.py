"""Everybody with a process of their own: workers, readers and outside writers, and their ways to the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.crew import Place
from tests.chaos.outsiders import Outsiders
from tests.chaos.readers import Readers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.processes import Terms
    from tests.chaos.staff import Staff
    from tests.chaos.topology import Topology, Way


class Company:
    """All of them. The first worker and the first reader reach the database without a proxy."""

    def __init__(self, topology: Topology, terms: Terms, ways: Sequence[Way], seed: int) -> None:
        self.places: list[Place] = []
        self.readers = Readers((topology.url, ways[0].url), terms, seed)
        self.outsiders = Outsiders((ways[0].url, ways[-1].url), terms)
        self.staff: tuple[Staff, ...] = (self.readers, self.outsiders)
        self._worker_urls = (topology.url, *(way.url for way in ways[1:]))
        self._terms = terms

    def hire(self) -> None:
        """Starts all of them."""
        for number, url in enumerate(self._worker_urls):
            self.places.append(Place(number, url, self._terms))
        for staff in self.staff:
            staff.hire()

    def is_ready(self) -> bool:
        """Whether everybody serves and listens."""
        return all(place.ready for place in self.places) and all(staff.ready for staff in self.staff)

    def close(self) -> None:
        """Makes sure that nothing is left of them."""
        for place in self.places:
            place.process.close()
        for staff in self.staff:
            staff.close()

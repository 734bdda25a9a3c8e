"""The reference of a queue with partitions: weighted round robin, and rates, in a few lines."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.proof.model_buckets import Rate

KEYS = ("", "a", "b", "c", "é")
"""In the order of their turns. The empty one stands for none."""


@dataclass(frozen=True, order=True)
class Job:
    """A workflow of the model, by its place in its partition."""

    priority: int
    number: int
    key: str = field(compare=False)
    units: int = field(default=1, compare=False)

    @property
    def name(self) -> str:
        """Its id."""
        return f"j{self.number:04}"


@dataclass
class Rates:
    """What may begin: of the queue, and of each partition."""

    queue: Rate | None = None
    of_each: tuple[int, int] | None = None
    """The burst of each partition, and the seconds in which a unit comes back."""
    partitions: dict[str, Rate] = field(default_factory=dict)
    """Those that have a row."""
    begun: set[Job] = field(default_factory=set)
    """What needs no units."""

    def partition(self, key: str) -> Rate | None:
        """That of a partition, which has all of its burst if it has no row."""
        return self.partitions.get(key, Rate(*self.of_each)) if self.of_each else None

    def take(self, key: str, units: int) -> None:
        """Units of a partition are taken, or given back."""
        rate = self.partition(key)
        if rate is not None:
            rate.take(units)
            self.partitions[key] = rate

    def change(self, queue: tuple[int, int] | None, of_each: tuple[int, int] | None) -> None:
        """Other rates. Nothing is left of a burst of which something is taken, and a debt stays one."""
        if queue is None or self.queue is None:
            self.queue = Rate(*queue, since=0.0) if queue else None
        else:
            self.queue.changes(*queue)
        if of_each != self.of_each:
            taken = {key: rate for key, rate in self.partitions.items() if rate.level > 0}
            self.partitions = taken if of_each and self.of_each else {}
            self.of_each = of_each
        for rate in self.partitions.values():
            if of_each:
                rate.changes(*of_each)

    def passes(self, seconds: float) -> None:
        """The clock goes on, or is put back."""
        for rate in [*self.partitions.values(), *filter(None, [self.queue])]:
            rate.passes(seconds)

    def tidy(self) -> None:
        """Partitions of which nothing is taken lose their row."""
        self.partitions = {
            key: rate for key, rate in self.partitions.items() if rate.base * rate.unit > (rate.since or 0.0)
        }

    def fits(self, job: Job, rate: Rate | None) -> bool:
        """Whether a rate lets one begin."""
        return rate is None or job in self.begun or min(job.units, rate.burst) <= rate.left

    def begin_in_order(self, jobs: list[Job], rate: Rate | None) -> list[Job]:
        """Those that a rate lets begin: none overtakes one that waits for its units, but for what has begun."""
        found, left = [], rate.left if rate else 0
        for job in jobs:
            if job not in self.begun and rate is not None:
                left -= min(job.units, rate.burst)
            if job in self.begun or left >= 0:
                found.append(job)
        return found


@dataclass
class Turns:
    """Whose turn it is."""

    rates: Rates = field(default_factory=Rates)
    weights: dict[str, int] = field(default_factory=dict)
    served: str | None = None
    turn: int = 0

    def weight(self, key: str) -> int:
        """How many of a partition have their turn at once."""
        return self.weights.get(key, 1)

    def ring(self) -> list[tuple[str, int]]:
        """The partitions in their turn, each with how many of it are left of its first turn."""
        last = self.served or ""
        rest = self.weight(last) - self.turn if self.served is not None else 0
        order = [key for key in KEYS if key > last] + [key for key in KEYS if key <= last]
        turns = [(key, self.weight(key)) for key in order]
        return [(last, rest), *turns[:-1]] if rest > 0 else turns

    def choose(self, waiting: dict[str, list[Job]], rooms: dict[str, int], most: int) -> list[tuple[str, int]]:
        """The partitions that a claim takes from: with room, and with units for their first one."""
        chosen, is_held, found, rates = [], False, 0, self.rates
        queue_is_put_back = rates.queue is not None and rates.queue.is_put_back
        for key, rest in self.ring():
            own, first = rates.partition(key), min(waiting[key], default=None)
            is_put_back = own is not None and own.is_put_back
            if first is None or rooms[key] <= 0 or not (rates.fits(first, own) or is_put_back):
                continue
            chosen.append((key, rest))
            has_units = rates.fits(first, rates.queue)
            found += has_units and (not is_held or rates.queue is None or first in rates.begun)
            is_held = is_held or not has_units
            if found == most:
                break
        return chosen if found or queue_is_put_back else []

    def take(self, waiting: dict[str, list[Job]], rooms: dict[str, int], most: int) -> list[Job]:
        """What a claim takes of what waits in partitions that have some room."""
        chosen, rates = self.choose(waiting, rooms, most), self.rates
        total = sum(self.weight(key) for key, _ in chosen)
        candidates = []
        for place, (key, rest) in enumerate(chosen):
            weight = self.weight(key)
            first = sorted(waiting[key])[: min(rooms[key], most, weight * -(-most // total))]
            candidates += [
                (max(number - rest + weight - 1, 0) // weight, place, number, rest, job)
                for number, job in enumerate(rates.begin_in_order(first, rates.partition(key)), 1)
            ]
        candidates.sort()
        allowed = rates.begin_in_order([job for *_, job in candidates], rates.queue)
        taken = [one for one in candidates if one[-1] in allowed][:most]
        if taken and (self.served or any(job.key for *_, job in taken)):
            *_, number, rest, last = taken[-1]
            weight = self.weight(last.key)
            self.served = last.key
            self.turn = weight - rest + number if number <= rest else (number - rest - 1) % weight + 1
        self._pay([key for key, _ in chosen], [job for *_, job in taken])
        return [job for *_, job in taken]

    def _pay(self, chosen: list[str], taken: list[Job]) -> None:
        rates = self.rates
        begins = [job for job in taken if job not in rates.begun]
        if rates.queue is not None and chosen and (begins or rates.queue.is_put_back):
            rates.queue.take(sum(job.units for job in begins))
        for key in chosen:
            own = rates.partition(key)
            units = [job.units for job in begins if job.key == key]
            if own is not None and (units or own.is_put_back):
                rates.take(key, sum(units))
        rates.begun |= {*taken}

"""The limits of a queue as a program gives them: ``Queue``, checked, and as columns of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow._records.pins import check_partition_key, check_queue
from dbosflow.config import LARGEST_INTEGER, check_identifier, check_seconds, check_whole, shown
from dbosflow.errors import ConfigurationError
from dbosflow.types import LONGEST_DURATION, Rate

if TYPE_CHECKING:
    from collections.abc import Collection

_NUMBERS = ("concurrency", "worker_concurrency", "partition_concurrency")
LIMITS = (*_NUMBERS, "weights", "rate", "bucket", "partition_rate")
"""What ``change`` changes."""
MOST_WEIGHT = 1000
_LEAST_PERIOD = 1e-6
JOINS = "joins"
"""Stands for a bucket whose rate the queue gets."""
RATE = "rate_count"
"""The column by which a change of the rate, or of its bucket, is known."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The limits of a queue, to be set by ``engine.queues.apply``. They hold in all processes, at every moment.

    ``None`` stands for no limit.
    """

    name: str
    """The queue's name."""
    concurrency: int | None = None
    """How many of its workflows may run at a time, in all workers together."""
    worker_concurrency: int | None = None
    """How many of them may run at a time in each worker, however many slots that has."""
    partition_concurrency: int | None = None
    """How many of those with one partition key may run at a time, in all workers together. Those without a key are one
    partition, too."""
    weights: Mapping[str, int] | None = None
    """How many workflows of a partition are taken when it has its turn: ``{"big": 3}``, up to 1000. Of others it is
    one."""
    rate: Rate | None = None
    """How many of its workflows, or of their units, may begin in a time, in all workers together. What goes on after a
    wait or a crash does not count again. With a ``bucket`` several queues share it; then the last rate that is applied
    to one of them is that of all."""
    paused: bool | None = None
    """Whether nothing of it begins; ``None``: that stays as it is, as operators have left it."""
    bucket: str | None = None
    """In place of a ``rate``: a bucket that other queues have already, with the rate that this has now."""
    partition_rate: Rate | None = None
    """How many of those with one partition key, or of their units, may begin in a time; beside the ``rate`` of all.
    Those without a key are one partition, too. It has no bucket."""

    def __post_init__(self) -> None:
        check_queue(self.name)
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                check_whole(f"queue {name}", getattr(self, name), 1, LARGEST_INTEGER, or_none=True)
        _check_weights(self.weights)
        _check_rate("rate", self.rate)
        _check_bucket(self.bucket, self.rate)
        _check_rate("partition_rate", self.partition_rate)
        paused: object = self.paused
        if not isinstance(paused, bool | None):
            msg = f"queue paused={shown(self.paused)} must be True or False, or None to leave it as it is"
            raise ConfigurationError(msg)


def check_buckets(queues: Collection[Queue]) -> None:
    """Queues that are applied together say the same of a bucket that they share."""
    rates: dict[str, Rate] = {}
    for one in queues:
        if one.rate is not None and one.rate.bucket is not None:
            other = rates.setdefault(one.rate.bucket, one.rate)
            if (other.count, other.per, other.burst) != (one.rate.count, one.rate.per, one.rate.burst):
                msg = (
                    f"queue {one.name!r} gives bucket {one.rate.bucket!r} another rate than a queue before it: "
                    f"{one.rate} and {other}. A bucket has one rate, for all of its queues"
                )
                raise ConfigurationError(msg)


def checked(name: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Some limits of a queue, as columns."""
    unknown = sorted(limits.keys() - {*LIMITS})
    if unknown or not limits:
        msg = f"queue {name!r} has no limit {', '.join(unknown) or 'to change'}: there are {', '.join(LIMITS)}"
        raise ConfigurationError(msg)
    if "bucket" in limits and limits["bucket"] is None:
        msg = f"queue {name!r} leaves its bucket with a rate of its own: give rate=Rate(...), or rate=None for no limit"
        raise ConfigurationError(msg)
    one = Queue(name, **limits)
    return columns({limit: getattr(one, limit) for limit in limits})


def columns(limits: dict[str, Any]) -> dict[str, Any]:
    """The limits as the table has them."""
    if "weights" in limits:
        limits["weights"] = json.dumps(dict(limits["weights"])) if limits["weights"] else None
    joined = limits.pop("bucket", None)
    if joined is not None:
        limits.pop("rate", None)
        limits[JOINS] = joined
    elif "rate" in limits:
        rate: Rate | None = limits.pop("rate")
        limits[RATE] = None if rate is None else rate.count
        limits["rate_period"] = None if rate is None else rate.per
        limits["rate_burst"] = None if rate is None else rate.burst or rate.count
        limits["bucket"] = None if rate is None else rate.bucket
    if "partition_rate" in limits:
        of_each: Rate | None = limits.pop("partition_rate")
        limits["partition_rate_count"] = None if of_each is None else of_each.count
        limits["partition_rate_period"] = None if of_each is None else of_each.per
        limits["partition_rate_burst"] = None if of_each is None else of_each.burst or of_each.count
    return limits


def _check_weights(weights: object) -> None:
    if not isinstance(weights, Mapping | None):
        msg = f"queue weights={shown(weights)} must be a dictionary of partition keys and whole numbers, or None"
        raise ConfigurationError(msg)
    for key, weight in (weights or {}).items():
        check_partition_key(check_identifier("queue weights: the partition key", key), "")
        check_whole(f"queue weights: that of {shown(key)}", weight, 1, MOST_WEIGHT)


def _check_rate(name: str, rate: object) -> None:
    if not isinstance(rate, Rate | None):
        msg = f"queue {name}={shown(rate)} must be a Rate, such as Rate(1000, per=60), or None"
        raise ConfigurationError(msg)
    if rate is None:
        return
    check_whole(f"queue {name}: count", rate.count, 1, LARGEST_INTEGER)
    check_seconds(f"queue {name}: per", rate.per, above_zero=True)
    if rate.burst is not None:
        check_whole(f"queue {name}: burst", rate.burst, 1, LARGEST_INTEGER, or_none=True)
    if rate.bucket is not None and name != "rate":
        msg = f"queue {name}={rate!r} has a bucket, and each partition has this rate for itself: leave bucket= out"
        raise ConfigurationError(msg)
    if rate.bucket is not None:
        check_identifier(f"queue {name}: bucket", rate.bucket)
    if rate.per < _LEAST_PERIOD or (rate.burst or rate.count) * rate.per / rate.count > LONGEST_DURATION:
        msg = f"queue {name}={rate} must have a microsecond or more, and get its burst back within a hundred years"
        raise ConfigurationError(msg)


def _check_bucket(bucket: object, rate: Rate | None) -> None:
    if bucket is None:
        return
    check_identifier("queue bucket", bucket)
    if rate is not None:
        msg = (
            f"bucket={bucket!r} stands for the rate that the bucket has: leave out rate, or give Rate(..., bucket=...)"
        )
        raise ConfigurationError(msg)

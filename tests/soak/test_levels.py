"""The judge of levels sees what grows, in what is really measured, and takes no noise for it."""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import random
import socket
import sys
import threading
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine
from tests.soak.chart import draw
from tests.soak.judging import BOUNDS, Bound, can_judge, judge, leak, medians, warm_up
from tests.soak.sampling import Member, Sampler, measure, own_levels
from tests.soak.series import MOST, Levels, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.soak.series import Point

SECONDS = 400.0
SAMPLES = 60
MEMORY = BOUNDS["memory"]


# -- what is really measured -------------------------------------------------------------------------------------------


class Leaking:
    """PairRoute to lose one more of something in this process, and all that was lost."""

    def __init__(self, url: str, resources: ExitStack, engine: Engine) -> None:
        self._url = url
        self._resources = resources
        self._engine = engine
        self._kept: list[Any] = []
        self._over = threading.Event()
        resources.callback(self._over.set)

    def memory(self) -> None:
        """A megabyte, from the system: the process may have more than enough that it has freed."""
        block = mmap.mmap(-1, 1_000_000)
        block.write(b"x" * 1_000_000)
        self._kept.append(block)

    def blocks(self) -> None:
        """Many small things."""
        self._kept.append([object() for _ in range(5_000)])

    def threads(self) -> None:
        """One that never comes back."""
        threading.Thread(target=self._over.wait, daemon=True).start()

    def descriptors(self) -> None:
        """A socket."""
        self._resources.enter_context(socket.socket())

    def connections(self) -> None:
        """A session."""
        self._resources.enter_context(psycopg.connect(self._url, application_name="leaking"))

    def listening(self) -> None:
        """A session that listens."""
        connection = psycopg.connect(self._url, application_name="leaking", autocommit=True)
        self._resources.enter_context(connection).execute("LISTEN something")

    async def tasks(self) -> None:
        """A reader that nobody reads any more, and that was not closed."""
        channel = self._engine.read_stream_async("nobody", "k", wait_for=1000.0)
        self._kept.append(asyncio.ensure_future(channel.read()))
        await asyncio.sleep(0)

    async def nothing(self) -> None:
        """What a healthy process does."""
        await asyncio.sleep(0)


async def levels_of(url: str, leaking: Leaking, what: str) -> Levels:
    """Samples this process, which loses one more of something before each of them."""
    levels, loop = Levels(), asyncio.get_running_loop()
    sampler = Sampler(levels, url, lambda: [Member("this", "leaking", os.getpid(), own_levels(loop))])
    for number in range(SAMPLES):
        lost = getattr(leaking, what)()
        if lost is not None:
            await lost
        await asyncio.to_thread(sampler.sample, number * SECONDS / SAMPLES)
    return levels


@pytest.mark.parametrize(
    "what", ["memory", "blocks", "threads", "descriptors", "connections", "listening", "tasks", "nothing"]
)
async def test_what_a_process_loses_is_measured_and_reported(database_url: str, what: str) -> None:
    """And a process that loses nothing has no leak."""
    with ExitStack() as resources:
        async with Engine(database_url, executes=False) as engine:
            levels = await levels_of(database_url, Leaking(database_url, resources, engine), what)
    complaints = [*judge(levels, SECONDS)]
    if what == "nothing":
        assert complaints == []
    else:
        assert any(complaint.startswith(f"{what} of this: rises by") for complaint in complaints), complaints


def test_a_process_that_is_gone_has_no_levels() -> None:
    assert measure(2**22 + 1) == {}


def test_rows_that_grow_are_reported(database_url: str) -> None:
    """Also while the database is away now and then."""
    levels = Levels()
    away = f"{database_url}&host=/nowhere"
    with psycopg.connect(database_url, autocommit=True) as connection:
        for number in range(SAMPLES):
            connection.execute(
                """INSERT INTO dbosflow.workflow (id, name, status, input)
                   SELECT gen_random_uuid(), 'x', 'succeeded', '{}' FROM generate_series(1, 100)"""
            )
            url = away if number % 5 == 0 else database_url
            Sampler(levels, url, list).sample(number * SECONDS / SAMPLES)
    assert [complaint.partition(":")[0] for complaint in judge(levels, SECONDS)] == ["rows of workflow"]


# -- noise -------------------------------------------------------------------------------------------------------------


def simulated(value: Callable[[float, random.Random], float], seed: int) -> list[Point]:
    """A level over time."""
    draw = random.Random(seed)
    return [(at, value(at, draw)) for at in (number * 2.0 for number in range(150))]


NOISES: dict[str, Callable[[float, random.Random], float]] = {
    "none": lambda at, draw: 50e6,
    "white": lambda at, draw: draw.gauss(50e6, 10e6),
    "a collector of garbage": lambda at, draw: 40e6 + (at % 37) * 1e6,
    "outages": lambda at, draw: 0.0 if draw.random() < 0.2 else draw.gauss(50e6, 2e6),
    "outbursts": lambda at, draw: 50e6 * (1 + (draw.random() < 0.1) * draw.random() * 5),
    "a wave": lambda at, draw: 50e6 + 20e6 * math.sin(at / 20),
    "a late warm-up": lambda at, draw: 50e6 - 30e6 * math.exp(-at / 20),
    "a fall": lambda at, draw: 90e6 - 100e3 * at,
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_noise_is_no_leak(noise: Callable[[float, random.Random], float]) -> None:
    """Nor is it in a hundred runs."""
    assert [leak(simulated(noise, seed), MEMORY) for seed in range(100)] == [None] * 100


@pytest.mark.parametrize("noise", ["none", "white", "a collector of garbage", "outages", "outbursts"])
def test_a_leak_under_noise_is_seen(noise: str) -> None:
    """In nearly all of a hundred runs: it is 25 MB over the time."""
    found = [
        leak(simulated(lambda at, draw: NOISES[noise](at, draw) + 25e6 * at / 300, seed), MEMORY) for seed in range(100)
    ]
    assert sum(one is not None for one in found) >= 90


def test_a_slow_leak_is_seen_by_a_longer_run() -> None:
    """The bound is for the whole run, however long."""
    minute = [(at, 50e6 + 100e3 * at / 60) for at in range(0, 7200, 2)]
    assert leak(minute[:150], MEMORY) is None
    complaint = leak(minute, MEMORY)
    assert complaint is not None
    assert complaint.startswith("rises by 0.1 MB a minute, from 50.")


def test_what_goes_with_the_work_may_rise_with_its_pace() -> None:
    """By as much of itself, and by its bound; whatever else is lost rises besides, and is seen."""
    for lost, expected in ((0.0, 0), (200.0, 1)):
        levels = Levels()
        for number in range(200):
            at = number * 2.0
            pace = 100 + at / 2
            levels.add("pace", "clients", at, pace)
            levels.add("rows", "workflow", at, 80 * pace + lost * at)
        assert [one.split(":")[0] for one in judge(levels, SECONDS)] == ["rows of workflow"] * expected
    flat = Levels()
    for number in range(200):
        flat.add("pace", "clients", number * 2.0, 100)
        flat.add("rows", "workflow", number * 2.0, 8_000 + 80 * number)
    assert len([*judge(flat, SECONDS)]) == 1


def test_who_came_in_the_middle_is_not_compared_with_its_predecessor() -> None:
    """A process that came before the end of the warm-up is judged."""
    for at_restart, expected in ((200.0, 0), (50.0, 1)):
        levels = Levels()
        for number in range(200):
            at = number * 2.0
            if at == at_restart:
                levels.begin_anew("w", at)
            levels.add("memory", "w", at, 50e6 + 1e6 * at)
        assert len([*judge(levels, SECONDS)]) == expected


def test_a_run_may_be_too_short_to_say_anything() -> None:
    assert not can_judge(120.0)
    assert can_judge(300.0)
    assert warm_up(36_000.0) == 900.0
    levels = Levels()
    for at in range(120):
        levels.add("memory", "w", at, 1e6 * at)
    assert [*judge(levels, 120.0)] == []
    assert leak([], Bound(1)) is None
    assert medians([(3.0, 7.0)]) == [(3.0, 7.0)]


def test_a_series_keeps_no_more_than_it_may() -> None:
    """Evenly spread over the whole time, however long that is."""
    series = Series()
    for at in range(100_000):
        series.add(at, at)
    points = series.points
    assert MOST / 2 <= len(points) <= MOST
    gaps = {later[0] - earlier[0] for earlier, later in pairwise(points)}
    assert len(gaps) == 1
    assert points[0][0] == 0
    assert points[-1][0] > 99_500


def test_without_matplotlib_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody minds."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not draw(str(tmp_path / "x.png"), Levels(), [], 100.0, "none")
    assert [*tmp_path.iterdir()] == []


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    assert threading.active_count() < 100

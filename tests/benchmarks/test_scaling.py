"""The simulation behind the guide to sizes: queues that can be worked out by hand, and the fit of its times."""

from __future__ import annotations

import pytest

from benchmarks.scaling.__main__ import capacity, checked
from benchmarks.scaling.fit import STEPS, IncompleteFiguresError, costs, flush, wal
from benchmarks.scaling.model import Costs, closed, opened

COSTS = Costs(client_batch=300e-6, client_record=40e-6, server_batch=250e-6, server_record=10e-6, flush=400e-6)


def test_a_lone_workflow_takes_one_thing_after_the_other() -> None:
    found = closed(COSTS, workflows=1)
    assert found.rate == pytest.approx(1000, rel=0.01)
    assert found.batch == pytest.approx(1, rel=0.01)
    assert found.client_load == pytest.approx(0.34, rel=0.01)
    assert found.server_cores == pytest.approx(0.26, rel=0.01)


def test_what_is_recorded_during_a_batch_shares_the_next() -> None:
    """Half of a hundred is written while the other half goes on: the worker's core is the limit."""
    found = closed(COSTS, workflows=100)
    assert found.batch == pytest.approx(50, rel=0.05)
    assert found.client_load > 0.8
    assert found.rate > 18 * closed(COSTS, workflows=1).rate


def test_commits_of_many_workers_share_a_flush() -> None:
    lone, many = closed(COSTS, workflows=1), closed(COSTS, workflows=1, workers=20, cores=20)
    assert lone.flushes == pytest.approx(lone.rate, rel=0.01)
    assert many.rate > 10 * lone.rate
    assert many.flushes < 1 / COSTS.flush + 1


def test_backends_share_the_cores_of_the_server() -> None:
    """A batch of one takes 260 us of a core: two cores make 7,692 a second, however many ask."""
    found = closed(COSTS, workflows=1, workers=40, cores=2)
    assert found.server_cores == pytest.approx(2, rel=0.01)
    assert found.rate == pytest.approx(2 / 260e-6, rel=0.02)


def test_the_same_load_from_more_workers_makes_smaller_batches() -> None:
    few, many = (opened(COSTS, rate=5000, workers=count, cores=64, seconds=1.0) for count in (1, 50))
    assert few.rate == pytest.approx(many.rate, rel=0.03)
    assert few.batch > 3 * many.batch
    assert few.server_cores < many.server_cores / 2


def figures(times: Costs, batch: float = 200.0) -> dict[str, dict[str, dict[str, float]]]:
    """What the benchmarks would measure on a machine with these times."""
    lone = closed(times, workflows=1).rate
    limit = {"client_cpu_us": 250.0, "server_cpu_us": 250.0, "rate": 1 / (500e-6 + times.flush)}

    def measured(rate: float, batch: float) -> dict[str, float]:
        return {
            "rate": rate,
            "commits": 1 / batch,
            "client_cpu_us": (times.client_batch / batch + times.client_record) * 1e6,
            "server_cpu_us": (times.server_batch / batch + times.server_record) * 1e6,
            "wal_bytes": 100 / batch + 300,
        }

    rates = {name: closed(times, workflows=count).rate for name, count in (("steps_100", 100), ("steps_1000", 1000))}
    return {
        "steps_async": {"ours": measured(lone, 1.0), "limit": limit},
        "steps_100": {"ours": measured(rates["steps_100"], batch / 4)},
        "steps_1000": {"ours": measured(rates["steps_1000"], batch)},
        "start_to_result": {"ours": measured(lone, 1.0) | {"p50": 1000 / lone}},
        "no_step": {"ours": measured(rates["steps_1000"], batch)},
    }


def test_the_times_are_found_in_measured_figures() -> None:
    measured = figures(COSTS)

    def figure(scenario: str, contender: str, name: str) -> float | None:
        return measured[scenario].get(contender, {}).get(name)

    assert flush(figure) == pytest.approx(COSTS.flush)
    assert vars(costs(figure, STEPS)) == pytest.approx(vars(COSTS))
    assert wal(figure, STEPS) == pytest.approx((100, 300))
    table = checked(figure)
    assert table.count("met") == 5
    del measured["steps_1000"]["ours"]["commits"]
    with pytest.raises(IncompleteFiguresError, match="'commits' of ours in steps_1000"):
        costs(figure, STEPS)


def test_a_ratio_that_is_not_as_simulated_is_told() -> None:
    measured = figures(COSTS)
    measured["steps_100"]["ours"]["rate"] /= 1.5
    table = checked(lambda scenario, contender, name: measured[scenario].get(contender, {}).get(name))
    assert [line.split(" |")[0] for line in table.splitlines() if "MISSED" in line] == ["| steps_100"]


def test_too_few_workers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scaling.__main__.RATES", (1000, 40_000))
    monkeypatch.setattr("benchmarks.scaling.__main__.WORKERS", (1,))
    assert "too few: 2 or more" in capacity(COSTS, (100, 300)).splitlines()[-1]

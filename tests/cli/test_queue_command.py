"""``dbosflow queue``: what an operator sees and sets."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, workflow
from dbosflow.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(database_url: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on the test's database; its status and what it has printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["queue", *arguments, "--database-url", database_url])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@workflow(name="queued by command")
def queued_by_command() -> None:
    """Waits for a worker."""


def in_json(command: Command, *arguments: str) -> dict[str, Any]:
    """What the command says of the queue."""
    status, out, _ = command(*arguments, "--json")
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_limits_are_set_one_by_one_and_removed(command: Command) -> None:
    """What is not named stays; `none` is no limit."""
    limits = ("concurrency", "worker_concurrency")
    found = in_json(command, "set", "llm", "--concurrency", "5")
    assert [found[name] for name in limits] == [5, None]
    found = in_json(command, "set", "llm", "--worker-concurrency", "2")
    assert [found[name] for name in limits] == [5, 2]
    found = in_json(command, "set", "llm", "--concurrency", "none")
    assert [found[name] for name in limits] == [None, 2]
    found = in_json(command, "set", "llm", "--rate", "1000/1m")
    found = in_json(command, "set", "llm", "--partition-concurrency", "3", "--weight", "acme=2", "--weight", "a=b=5")
    assert (found["partition_concurrency"], found["weights"]) == (3, {"acme": 2, "a=b": 5})
    found = in_json(command, "set", "llm", "--weight", "none", "--rate", "1000/1m")
    assert found["weights"] == {}
    assert found["rate"] == {"count": 1000, "per": 60.0, "burst": None, "bucket": None}
    assert command("info", "llm")[1].splitlines()[1].split() == [
        "llm",
        "0",
        "-",
        "0",
        "-",
        "2",
        "3",
        "-",
        "1000/60s",
        "1000",
        "-",
        "-",
        "-",
        "-",
    ]
    assert in_json(command, "set", "llm", "--rate", "none")["rate"] is None
    found = in_json(command, "set", "llm", "--partition-rate", "5/1m", "--partition-burst", "9")
    assert (found["rate"], found["partition_rate"]) == (None, {"count": 5, "per": 60.0, "burst": 9, "bucket": None})
    assert command("info", "llm")[1].splitlines()[1].split()[-3:] == ["5/60s", "9", "-"]
    assert in_json(command, "set", "llm", "--partition-rate", "none")["partition_rate"] is None
    assert in_json(command, "delete", "llm")["limited"] is False


@pytest.mark.parametrize("shown", [("list",), ("info", "llm")], ids=" ".join)
def test_each_limit_is_in_the_table(command: Command, shown: tuple[str, ...]) -> None:
    """Under its heading, with the weights in the order of their partitions."""
    limits = ("--concurrency", "9", "--worker-concurrency", "4", "--partition-concurrency", "3")
    weights = ("--weight", "b=1000", "--weight", "a\tb=1")
    command("set", "llm", *limits, *weights, "--rate", "7/1m", "--burst", "5", "--bucket", "api")
    command("pause", "llm")
    headings, row = (re.split(r"  +", line) for line in command(*shown)[1].splitlines())
    found = dict(zip(headings, row, strict=True))
    limited = {"CONCURRENCY": "9", "PER WORKER": "4", "PER PARTITION": "3", "WEIGHTS": r"a\tb=1,b=1000"}
    assert found.items() >= {**limited, "RATE": "7/60s", "BURST": "5", "BUCKET": "api", "PAUSED": "yes"}.items()


def test_a_weight_says_its_bounds(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """In the help, and where it is beyond them."""
    for weight in ("0", "1001", "9" * 5000):
        with pytest.raises(SystemExit):
            command("set", "llm", "--weight", f"acme={weight}")
        assert "at least 1, and at most 1000" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["queue", "set", "--help"])
    assert "from 1 to 1000" in " ".join(capsys.readouterr().out.split())


def test_a_pause_is_set_with_or_without_an_end(command: Command) -> None:
    """And is over at once when the queue is resumed."""
    assert in_json(command, "pause", "llm")["paused_until"] is None
    assert in_json(command, "info", "llm")["paused"] is True
    assert in_json(command, "pause", "llm", "--until", "30m")["paused_until"] is not None
    found = in_json(command, "pause", "llm", "--until", "2100-01-01T01:00:00+01:00")
    assert found["paused_until"] == "2100-01-01T00:00:00+00:00"
    assert in_json(command, "resume", "llm")["paused"] is False


def test_a_rate_is_that_of_a_bucket_until_the_queue_gets_one_of_its_own(command: Command) -> None:
    """A new rate without a bucket is the bucket's: it would be a mistake to leave that unsaid."""
    rate = {"count": 1000, "per": 60.0, "burst": 50, "bucket": "api"}
    assert in_json(command, "set", "a", "--rate", "1000/1m", "--burst", "50", "--bucket", "api")["rate"] == rate
    assert in_json(command, "set", "b", "--rate", "2000/1m", "--bucket", "api")["rate"]["bucket"] == "api"
    rate = {"count": 3000, "per": 60.0, "burst": None, "bucket": "api"}
    assert in_json(command, "set", "a", "--rate", "3000/1m")["rate"] == rate
    assert in_json(command, "info", "b")["rate"] == rate
    assert command("info", "b")[1].splitlines()[1].split()[-6:] == ["3000/60s", "3000", "api", "-", "-", "-"]
    assert in_json(command, "set", "b", "--rate", "5/1m", "--bucket", "none")["rate"]["bucket"] is None


def test_a_queue_joins_a_bucket_that_is_there(command: Command) -> None:
    """With the rate that this has; and a bucket that is not there is told apart from one without a rate."""
    rate = {"count": 1000, "per": 60.0, "burst": 50, "bucket": "api"}
    in_json(command, "set", "a", "--rate", "1000/1m", "--burst", "50", "--bucket", "api")
    in_json(command, "set", "b", "--rate", "5/1m")
    assert in_json(command, "set", "b", "--bucket", "api", "--concurrency", "5")["rate"] == rate
    assert in_json(command, "info", "a")["rate"] == rate
    status, _, err = command("set", "b", "--bucket", "unknown")
    assert status == 1
    assert "no bucket 'unknown'" in err
    assert in_json(command, "info", "b")["rate"] == rate


def test_all_queues_of_a_bucket_are_paused(command: Command) -> None:
    """And each says so."""
    for name in ("a", "b"):
        command("set", name, "--rate", "1000/1m", "--bucket", "api")
    status, out, _ = command("pause", "--bucket", "api", "--until", "30m", "--json")
    assert status == 0
    assert [(one["name"], one["paused"]) for one in json.loads(out)] == [("a", True), ("b", True)]
    assert in_json(command, "info", "b")["paused_until"] is not None
    _, out, _ = command("resume", "--bucket", "api")
    assert [line.split()[-1] for line in out.splitlines()] == ["PAUSED", "-", "-"]
    status, _, err = command("pause", "--bucket", "unknown")
    assert status != 0
    assert "no bucket 'unknown'" in err


def test_no_limit_is_set_while_an_older_worker_would_exceed_it(
    command: Command, execute: Callable[..., list[tuple[Any, ...]]]
) -> None:
    """It is named, with what to do; once it is gone, all is as ever."""
    execute(
        "INSERT INTO dbosflow.worker (id, lease, host, pid, version) "
        "VALUES (gen_random_uuid(), 3600, 'attic', 7, '0.0.9')"
    )
    for arguments in (("set", "llm", "--concurrency", "5"), ("pause", "llm"), ("pause", "--bucket", "api")):
        status, out, err = command(*arguments)
        assert (status, out) == (1, "")
        assert "attic (process 7, version 0.0.9). Stop them, or bring them to this version, first" in err
    status, _, err = command("set", "llm", "--concurrency", "5", "--json")
    assert json.loads(err)["error"]["type"] == "OutdatedWorkersError"
    assert command("list", "--json")[1] == "[]\n"
    execute("UPDATE dbosflow.worker SET state = 'dead'")
    assert in_json(command, "set", "llm", "--concurrency", "5")["concurrency"] == 5


def test_the_list_shows_what_waits(command: Command, database_url: str) -> None:
    """In a table, or as JSON."""
    status, out, err = command("list")
    assert (status, out) == (0, "")
    assert "no queue" in err
    with Engine(database_url, executes=False) as engine:
        engine.start(queued_by_command.options(queue="reports"))
    command("set", "llm", "--concurrency", "5")
    _, out, _ = command("list")
    assert [line.split()[0] for line in out.splitlines()] == ["QUEUE", "llm", "reports"]
    _, out, _ = command("list", "--json")
    assert [(one["name"], one["waiting"]) for one in json.loads(out)] == [("llm", 0), ("reports", 1)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "llm"),
        ("set", "llm", "--concurrency", "0"),
        ("set", "llm", "--rate", "5"),
        ("set", "llm", "--weight", "acme"),
        ("set", "llm", "--weight", "acme=0"),
        ("set", "llm", "--rate", "0/1m"),
        ("set", "llm", "--bucket", "none"),
        ("set", "llm", "--bucket", "api", "--burst", "5"),
        ("set", "llm", "--bucket", "api", "--rate", "none"),
        ("set", "llm", "--rate", "none", "--burst", "5"),
        ("pause",),
        ("pause", "llm", "--bucket", "api"),
        ("pause", "llm", "--until", "tomorrow"),
        ("pause", "llm", "--until", "5"),
        ("pause", "llm", "--until", "2100-01-01T00:00:00"),
        ("info",),
    ],
)
def test_wrong_arguments_are_refused(command: Command, arguments: tuple[str, ...]) -> None:
    """With the status of a wrong usage."""
    with pytest.raises(SystemExit) as refused:
        command(*arguments)
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "llm", "--until", "0001-01-01T00:00:00+14:00"), "year 1 of UTC or later"),
        (("pause", "llm", "--until", "9999-12-31T23:59:59Z"), "before the year 9001"),
        (("pause", "--bucket", ""), "1 to 512 bytes"),
        (("set", "llm", "--rate", "1/1m", "--bucket", ""), "1 to 512 bytes"),
        (("set", "llm", "--bucket", "\udcff"), "1 to 512 bytes"),
        (("set", "llm", "--rate", "1/999999999d"), "a hundred years"),
        (("set", "llm", "--rate", "1/36525d", "--burst", "2"), "within a hundred years"),
        (("set", "llm", "--weight", "\x1f=1"), "must not hold the character U+001F"),
        (("set", "q" * 100_000, "--concurrency", "1"), "1 to 512 bytes"),
        (("info", ""), "1 to 512 bytes"),
        (("resume", "dbosflow/pinned/v/q"), "must not begin with"),
    ],
    ids=lambda one: repr(one)[:60],
)
def test_what_only_the_engine_knows_is_wrong_is_told_in_a_line(
    command: Command, arguments: tuple[str, ...], said: str
) -> None:
    """Not by a traceback, and with nothing changed."""
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert len(err) < 400
    assert command("list", "--json")[1] == "[]\n"


def test_a_burst_without_its_rate_is_told_what_is_missing(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """And not that there are other limits."""
    with pytest.raises(SystemExit):
        command("set", "llm", "--burst", "5")
    assert "add --rate" in capsys.readouterr().err

"""The examples run as they say."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.shell import Shell

ROOT = Path(__file__).parents[2]


def test_the_worker_that_comes_with_the_compose_file_does_its_work(database_url: str) -> None:
    """Its default module, under the command that the file gives, serves the program; the health check finds it."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    command = re.search(r"command: dbosflow (.+)", text)
    assert command
    words = re.sub(r"\$\{DBOSFLOW_WORKFLOWS:-([\w.]+)\}", r"\1", command[1]).split()
    shell = Shell(ROOT)
    shell.use(database_url)
    try:
        shell.start(*words).await_log("the worker is ready")
        client = shell.python("-m", "examples.words", "durable", "streams").end()
        assert client.out == "DURABLE\nSTREAMS\n", client.err
        workflow_id = client.err.split()[-1]
        checked = re.search(r'test: \["CMD", "dbosflow", (.+)\]', text)
        assert checked
        assert shell.run(*re.findall(r'"(.+?)"', checked[1])).status == 0
        progress = shell.run("stream", "tail", workflow_id, "progress")
        assert progress.out == '{"done": 1, "of": 2}\n{"done": 2, "of": 2}\n'
    finally:
        shell.close()


def test_the_endpoint_answers_as_its_example_says(database_url: str) -> None:
    """As a program, without a network."""
    shell = Shell(ROOT)
    shell.use(database_url)
    try:
        assert (
            shell.python("-m", "examples.answers").end().out == "You ask 'To be or not to be?'. Who knows?\nwords=10\n"
        )
    finally:
        shell.close()


def test_the_shop_keeps_its_books(database_url: str) -> None:
    """An order that is paid, one whose charge fails, and one for which there is not enough."""
    shell = Shell(ROOT)
    shell.use(database_url)
    try:
        found = [shell.python("-m", "examples.orders", "chair", count).end().out for count in ("3", "6", "8")]
        assert found == [
            "charged for order 1, under the key order-1\norder: ('paid',)\nstock: [('chair', 7), ('table', 2)]\n",
            "order 2 failed: ValueError\norder: ('given up',)\nstock: [('chair', 7), ('table', 2)]\n",
            "order 3 failed: CheckViolation\norder: ('given up',)\nstock: [('chair', 7), ('table', 2)]\n",
        ]
    finally:
        shell.close()


def test_reports_come_by_their_schedules(database_url: str) -> None:
    """An invoice that is triggered, and a report of each second, in their order."""
    shell = Shell(ROOT)
    shell.use(database_url)
    try:
        shell.start("worker", "examples.reports").await_log("the worker is ready")
        invoice, *reports = shell.python("-m", "examples.reports", "ada").end().out.splitlines()
        assert invoice == "an invoice for ada"
        found = [re.fullmatch(r"pulse@(\S+)Z: a report about (\d+) s", line) for line in reports]
        assert len(found) >= 3
        assert all(found)
        assert [one[1] for one in found if one] == sorted({one[1] for one in found if one})
        assert "invoice-ada" in shell.run("schedule", "list").out
    finally:
        shell.close()

"""``dbosflow workflow export`` and ``import``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbosflow import Engine, workflow
from dbosflow._store.migrate import migrate

if TYPE_CHECKING:
    from tests.cli.shell import Shell


@workflow
def moved(number: int) -> int:
    return number


def test_workflows_move_by_a_file(shell: Shell, database_url: str, empty_database_url: str) -> None:
    """By ids, or by what selects them; what is there already is an error, or left out."""
    migrate(empty_database_url)
    with Engine(database_url) as engine:
        for number in range(3):
            engine.run(moved.options(workflow_id=f"w{number}"), number)
    to = ("--database-url", empty_database_url)
    assert shell.run("workflow", "export", "w0", "-o", "one").out == "1 workflow exported, in 1 row\n"
    done = shell.run("workflow", "export", "--name", "moved", "--status", "succeeded", "-o", "all", "--json")
    assert json.loads(done.out) == {"trees": 3, "workflows": 3, "rows": 3, "skipped": []}
    assert shell.run("workflow", "import", "one", *to).out == "1 workflow imported, in 1 row\n"
    refused = shell.run("workflow", "import", "all", *to, "--json")
    assert refused.status == 1
    assert json.loads(refused.err)["error"]["type"] == "WorkflowExistsError"
    said = json.loads(shell.run("workflow", "import", "all", *to, "--skip-existing", "--json").out)
    assert (said["workflows"], said["skipped"][-1]) in {(2, "w0"), (0, "w0")}  # those before it are there already
    with Engine(empty_database_url, executes=False) as engine:
        assert [engine.handle(f"w{number}", moved).result(30) for number in range(3)] == [0, 1, 2]
    text = shell.run("workflow", "export", "w2", "-o", "-").out
    assert [type(json.loads(line)) for line in text.splitlines()] == [dict, dict, list, dict, dict]


def test_a_file_that_is_none(shell: Shell, database_url: str) -> None:
    with Engine(database_url, executes=False):
        shell.write("empty", "")
        shell.write("other", '{"a": 1}\n')
    assert "the file ends before its last line" in shell.run("workflow", "import", "empty").err
    assert "this is no export of workflows" in shell.run("workflow", "import", "other").err
    assert shell.run("workflow", "import", "nowhere").status == 1

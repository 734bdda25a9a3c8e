"""``dbosflow new``: writes the files for something new, which work as they stand."""

from __future__ import annotations

import keyword
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from dbosflow.cli import console
from dbosflow.cli.console import say
from dbosflow.cli.options import add_command, add_json
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from dbosflow.cli.options import Commands

_DESCRIPTION = """\
Write a module with schemas, a workflow that streams, and the endpoint that starts
it and answers with its frames; and a test. Both work as they stand: change them."""


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    parser = commands.add_parser("new", help="write the files for something new, such as a streaming endpoint")
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="subcommand")
    stream = add_command(kinds, "stream", _run, help="write a workflow with an endpoint", description=_DESCRIPTION)
    stream.add_argument("name", metavar="NAME", help="its name, as Python writes one: word_count")
    stream.add_argument("--directory", type=Path, default=Path(), metavar="DIR", help="where (default: here)")
    add_json(stream, 'an object with the "files" that were written')


def _run(args: argparse.Namespace) -> int:
    name: str = args.name
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        msg = f"{name!r} cannot be the name of a module: take letters, digits and '_', like word_count"
        raise ConfigurationError(msg)
    written = write_stream_files(name, args.directory)
    if args.json:
        say(console.document({"files": [str(path) for path in written]}))
    else:
        for path in written:
            say(console.visible(str(path)))
    return 0


def write_stream_files(name: str, directory: Path) -> list[Path]:
    """Writes the module of a streaming endpoint, and its test.

    Raises:
        ConfigurationError: a file is there already. None is written.
    """
    paths = [directory / f"{name}.py", directory / f"test_{name}.py"]
    for path in paths:
        if path.exists():
            msg = f"{str(path)!r} is there already: take another name or --directory"
            raise ConfigurationError(msg)
    for path, template in zip(paths, ("stream.txt", "test_stream.txt"), strict=True):
        text = files("dbosflow.cli").joinpath("scaffold", template).read_text("utf-8")
        path.write_text(_filled(text, name), "utf-8")
    return paths


def _filled(text: str, name: str) -> str:
    camel = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    words = {"@name@": name, "@Name@": camel or "Stream", "@path@": name.strip("_").replace("_", "-") or "stream"}
    for word, value in words.items():
        text = text.replace(word, value)
    return text

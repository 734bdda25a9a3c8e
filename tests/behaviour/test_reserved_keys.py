"""The engine's own streams: no user's key can be one of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Stream, close_stream, workflow, write_stream
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from dbosflow import Engine

KEY = "dbosflow/inbox/chat"


@workflow
def writing(key: str) -> None:
    write_stream(key, 1)


@workflow
def closing(key: str) -> None:
    close_stream(key)


@pytest.mark.parametrize("target", [writing, closing])
def test_a_body_can_neither_write_nor_close_one(engine: Engine, target: Any) -> None:
    with pytest.raises(ConfigurationError, match="must not begin with 'dbosflow/'"):
        engine.run(target, KEY)


def test_none_can_be_declared_as_an_input_or_a_stream() -> None:
    with pytest.raises(ConfigurationError, match="must not begin with 'dbosflow/'"):
        workflow(inputs=[KEY])(lambda: None)
    with pytest.raises(ConfigurationError, match="must not begin with 'dbosflow/'"):
        Stream[int, None](KEY)


def test_none_can_be_written_from_outside_as_an_input(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="must not begin with 'dbosflow/'"):
        engine.write_stream("w", KEY, 1)

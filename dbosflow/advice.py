"""What to write instead of what JSON does not carry: the advice in an error of ``serde``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretBytes, SecretStr

from dbosflow.comparison import Absent

if TYPE_CHECKING:
    from dbosflow.comparison import Difference

_UNEXPECTED = re.compile(r"^PydanticSerializationUnexpectedValue\((.*?) - serialized value may not be as expected")
TELL_MORE = "Declare its type by an annotation that says what it is, or return what JSON has a word for"


def would_come_back(found: Difference) -> str:
    """What becomes of a value, in words that say nothing of what it holds."""
    sent, back = type(found.sent).__qualname__, type(found.back).__qualname__
    if isinstance(found.back, Absent):
        return f"a {sent} would not come back"
    return f"a {sent} would come back as {'another ' if sent == back else 'a '}{back}"


def advice(found: Difference) -> str:
    """What to write instead, for a refusal."""
    sent, back = found.sent, found.back
    if isinstance(sent, SecretStr | SecretBytes):
        return "A secret is written as asterisks: carry a reference to it, or declare a str to store it in clear"
    if isinstance(sent, BaseModel) and isinstance(back, BaseModel):
        return (
            f"Annotate {type(sent).__name__} itself, or a union of the classes that it may be; classes that look alike "
            'in JSON need a discriminator, as in Annotated[A | B, Field(discriminator="kind")]'
        )
    if isinstance(sent, dict) and isinstance(back, dict):
        return "JSON has names that are text only: declare the keys, as in dict[int, str]"
    if type(sent) is type(back) or Absent in {type(sent), type(back)}:
        return (
            "Is it excluded, not part of __init__, private, or changed by a validator? Then JSON has not all of it: "
            "declare a field for it that is read and written"
        )
    if isinstance(sent, bytes | str) and isinstance(back, bytes | str):
        return "In JSON both are text: put each into a model of its own, and declare a union with a discriminator"
    return (
        f"Declare what it is, as in an annotation `-> {type(sent).__name__}`, a field, or "
        f'Stream[{type(sent).__name__}, None]("key"); members of a union that look alike need Annotated[..., '
        'Field(discriminator="kind")]'
    )


def in_plain_words(error: str) -> str:
    """Pydantic's first reason for a refusal, without any value, and with the mistake if it tells which.

    The text of a value may be anything: what stands between the first value and the last type is left out.
    """
    reason = error.removeprefix("Pydantic serializer warnings:").strip()
    first, _, rest = reason.partition("input_value=")
    _, is_there, last_type = rest.rpartition(", input_type=")
    if is_there:
        more = "and more, the last with " if "input_value=" in rest else ""
        first = _UNEXPECTED.sub(r"\1", first)
        reason = f"{first}{more}input_type={last_type.rstrip('])')}]"
    return f"{reason}: an `await` is missing" if "<class 'coroutine'>" in reason else reason

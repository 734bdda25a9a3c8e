"""Envelopes: what is stored for a payload, how it is recognized, and what happens when it cannot be opened."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, ClassVar

import pytest

from dbosflow import Engine, workflow
from dbosflow.codecs import ENCRYPTION_KEYS_VARIABLE, Compress, Encrypt, generate_key
from dbosflow.codecs.chain import MARK, NO_CODECS, Codecs, labels_of
from dbosflow.config import Settings
from dbosflow.errors import (
    CodecError,
    ConfigurationError,
    MissingKeyError,
    SerializationError,
)
from dbosflow.serde import for_people, items_of, plain
from dbosflow.unreadable import Unreadable

KEY = generate_key()
LONG = json.dumps("word " * 1000)
PAYLOADS = ["null", '""', '"\\u0000\\ud800 é 😀"', '{"a":[1,2.5,{"b":null}]}', LONG]


class Reversed:
    """A codec of a user's."""

    name: ClassVar = "reversed"
    conceals: ClassVar = False

    def encode(self, data: bytes, /) -> tuple[str, bytes]:
        return "", data[::-1]

    def decode(self, detail: str, data: bytes, /) -> bytes:
        assert not detail
        return data[::-1]


chains = pytest.mark.parametrize(
    ("codecs", "labels"),
    [
        ([], ()),
        ([Compress()], ("zlib",)),
        ([Encrypt({"k": KEY})], ("aes-gcm-siv:k",)),
        ([Compress(), Reversed(), Encrypt({"k": KEY})], ("zlib", "reversed", "aes-gcm-siv:k")),
    ],
    ids=["none", "compressed", "encrypted", "all"],
)


@chains
@pytest.mark.parametrize("text", PAYLOADS)
def test_a_payload_comes_back_as_the_same_text(codecs: list[Any], labels: tuple[str, ...], text: str) -> None:
    """And what stands for it is JSON, and names the codecs in their order."""
    chain = Codecs.checked(codecs)
    stored = chain.seal(text)
    json.loads(stored)
    assert labels_of(stored) == tuple(label for label in labels if label != "zlib" or text == LONG)
    assert (chain.open(stored) if stored.startswith(MARK) else stored) == text
    assert chain.renewed(stored) == stored


def test_a_small_payload_is_not_compressed_and_neither_is_one_that_would_grow() -> None:
    """Both stand as they are."""
    chain = Codecs.checked([Compress(above=100)])
    assert chain.seal(json.dumps("a" * 98)) == json.dumps("a" * 98)
    assert Codecs.checked([Compress(above=0)]).seal('"abc"') == '"abc"'
    assert chain.seal(LONG).startswith(MARK)
    assert len(chain.seal(LONG)) < len(LONG) / 10


@pytest.mark.parametrize(
    "chain", [NO_CODECS, Codecs.checked([Compress(above=0)]), Codecs.checked([Encrypt({"k": KEY})])]
)
@pytest.mark.parametrize("hidden", ["%s", "[1,%s]", '{"a":%s}'])
def test_a_users_value_that_looks_like_an_envelope_comes_back(chain: Codecs, hidden: str) -> None:
    """At any depth, also one that has been stored before."""
    text = hidden % Codecs.checked([Encrypt({"other": generate_key()})]).seal('"secret"')
    for _ in range(3):
        stored = chain.seal(text)
        assert stored.startswith(MARK)
        assert chain.open(stored) == text
        text = stored


def test_equal_payloads_are_stored_as_different_texts() -> None:
    """Whoever compares ciphertexts learns nothing."""
    chain = Codecs.checked([Encrypt({"k": KEY})])
    assert chain.seal('"a"') != chain.seal('"a"')


def test_the_first_key_writes_and_every_key_reads() -> None:
    """So that keys can be replaced without a pause."""
    old, new = generate_key(), generate_key()
    before, after = Encrypt({"old": old, "new": new}), Encrypt({"new": new, "old": old})
    stored = Codecs.checked([before]).seal("1")
    assert labels_of(stored) == ("aes-gcm-siv:old",)
    assert Codecs.checked([after]).open(stored) == "1"
    renewed = Codecs.checked([after]).renewed(stored)
    assert labels_of(renewed) == ("aes-gcm-siv:new",)
    assert Codecs.checked([after]).open(renewed) == "1"
    assert Codecs.checked([after]).renewed(renewed) == renewed
    assert labels_of(Codecs.checked([after]).seal("1")) == ("aes-gcm-siv:new",)


@pytest.mark.parametrize("codecs", [[], [Encrypt({"other": KEY})]], ids=["no codec", "no such key"])
def test_a_missing_key_is_named(codecs: list[Any]) -> None:
    """By its id, which is an attribute of the error."""
    stored = Codecs.checked([Encrypt({"k": KEY})]).seal("1")
    with pytest.raises(MissingKeyError, match="'k'") as caught:
        Codecs.checked(codecs).open(stored)
    assert caught.value.key_id == "k"


def _changed(stored: str) -> str:
    row = json.loads(stored)
    data = bytearray(base64.b64decode(row["data"]))
    data[-1] ^= 1
    return stored.replace(row["data"], base64.b64encode(data).decode())


@pytest.mark.parametrize(
    ("codecs", "stored"),
    [
        ([Encrypt({"k": KEY})], _changed(Codecs.checked([Encrypt({"k": KEY})]).seal("1"))),
        ([Encrypt({"k": KEY})], Codecs.checked([Encrypt({"k": generate_key()})]).seal("1")),
        ([Encrypt({"k": KEY, "l": KEY})], Codecs.checked([Encrypt({"k": KEY})]).seal("1").replace("siv:k", "siv:l")),
        ([Encrypt({"k": KEY})], MARK + '"aes-gcm-siv:k"],"data":""}'),
        ([], _changed(Codecs.checked([Compress()]).seal(LONG))),
        ([], MARK + '"zlib"],"data":"eA=="}'),
        ([], Codecs.checked([Reversed()]).seal("1")),
        ([], MARK + "1]}"),
        ([], MARK),
        ([], MARK + '"zlib"],"data":"no base64"}'),
    ],
    ids=["changed", "another key", "relabelled", "cut off", "damaged", "too short", "unknown", "no", "half", "text"],
)
def test_what_cannot_be_opened_is_a_typed_error(codecs: list[Any], stored: str) -> None:
    """Whatever is in the table: a changed ciphertext, another key, an unknown codec, half an envelope."""
    with pytest.raises(CodecError):
        Codecs.checked(codecs).open(stored)


def test_an_unreadable_payload_is_never_taken_for_a_value() -> None:
    """Every parser raises its error, and a listing shows why."""
    error = MissingKeyError("k", "no key [k] {here}")
    text = Unreadable(error)
    for parse in (plain.load, items_of):
        with pytest.raises(MissingKeyError):
            parse(text)
    with pytest.raises(ValueError):  # noqa: PT011 (whatever the parser says)
        json.loads(text)
    assert for_people(text) == "<unreadable: no key (k) (here)>"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Encrypt({}),
        lambda: Encrypt({"k": b"short"}),
        lambda: Encrypt({"k": KEY[:-4] + "ab=="}),
        lambda: Encrypt({"a key": KEY}),
        lambda: Encrypt({"": KEY}),
        lambda: Compress(above=-1),
        lambda: Compress(level=10),
        lambda: Settings(codecs=[object()]),  # type: ignore[list-item]
        lambda: Settings(codecs=Compress()),  # type: ignore[arg-type]
        lambda: Settings(codecs=[Encrypt({"a": KEY}), Encrypt({"b": KEY})]),
    ],
)
def test_what_is_wrong_is_said_at_the_door_and_tells_no_key(make: Any) -> None:
    """A typed error."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert KEY[:12] not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands, and for engines that are given no codecs. What is printed has the ids only."""
    monkeypatch.setenv(ENCRYPTION_KEYS_VARIABLE, f"new:{KEY}, old:{generate_key()}")
    settings = Settings()
    assert labels_of(settings.chain.seal("1")) == ("aes-gcm-siv:new",)
    assert repr(settings.chain[0]) == "Encrypt(<keys new, old>)"
    assert KEY not in repr(settings)
    assert Settings(codecs=()).chain.seal("1") == "1"


@pytest.mark.parametrize(
    "value", ["nonsense", f"a:{KEY},a:{KEY}", f"a:{KEY[:-1]}", ","], ids=["words", "twice", "cut off", "none"]
)
def test_a_wrong_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """And its text shows nothing of the value."""
    monkeypatch.setenv(ENCRYPTION_KEYS_VARIABLE, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert KEY[:12] not in str(caught.value)


class Broken(Reversed):
    """A codec that fails for some."""

    def encode(self, data: bytes, /) -> tuple[str, bytes]:
        if b"bad" in data:
            raise RuntimeError("no")
        return super().encode(data)


@workflow(name="codecs.spoken")
async def spoken(text: str) -> str:
    return f"{text}d"


async def test_a_codec_that_fails_ends_that_workflow_and_no_other(database_url: str) -> None:
    """With a typed error; at a start the caller gets it."""
    async with Engine(database_url, codecs=[Broken()]) as engine:
        fails, goes_on = await asyncio.gather(*(engine.start_async(spoken, text) for text in ("ba", "goo")))
        with pytest.raises(SerializationError, match="does not encode"):
            await fails.result_async(timeout=60)
        assert await goes_on.result_async(timeout=60) == "good"
        with pytest.raises(SerializationError, match="the codec 'reversed' does not encode a payload"):
            await engine.start_async(spoken, "bad")

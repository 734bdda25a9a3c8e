"""A value comes back from its record as what it was, or it is refused where it is made, with what to write instead."""

from __future__ import annotations

import enum
import functools
import random
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    RootModel,
    SecretStr,
    Tag,
    computed_field,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dbosflow.errors import SerializationError
from dbosflow.serde import Codec, dump_undeclared

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Animal(BaseModel):
    """A base."""

    name: str


class Dog(Animal):
    """Derived from it."""

    tricks: int = 0


class First(BaseModel):
    """One of two that look alike."""

    x: int


class Second(BaseModel):
    """The other one."""

    x: int


class Cat(BaseModel):
    """One of two that are told apart by a field with an alias."""

    kind: Literal["cat"] = Field("cat", alias="type")
    lives: int = 9


class Fish(BaseModel):
    """The other one."""

    kind: Literal["fish"] = Field("fish", alias="type")
    lives: int = 1


class Aliased(BaseModel):
    """All ways to name a field."""

    model_config = ConfigDict(alias_generator=to_camel)
    user_id: int
    in_it: Cat = Field(default_factory=lambda: make(Cat))
    there: int = Field(0, validation_alias=AliasPath("a", "b"))
    either: int = Field(0, validation_alias=AliasChoices("c", "d"), serialization_alias="e")


class Crossed(BaseModel):
    """Each field has the other's name."""

    one: int = Field(alias="two")
    two: int = Field(alias="one")


class Computed(BaseModel):
    """Has more in JSON than it takes."""

    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field  # type: ignore[prop-decorator]  # (as pydantic says it)
    @property
    def area(self) -> int:
        return self.side**2


class Open(BaseModel):
    """Takes anything."""

    model_config = ConfigDict(extra="allow")
    a: int


class Blob(BaseModel):
    """Bytes at any depth."""

    data: bytes
    inner: list[Blob] = []


class Hexadecimal(BaseModel):
    """Bytes as its author wants them."""

    model_config = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")
    data: bytes


class Excluding(BaseModel):
    """Has less in JSON than it is."""

    name: str
    token: str = Field("", exclude=True)


class Hiding(BaseModel):
    """Has a private attribute."""

    a: int
    _hidden: int = PrivateAttr(0)

    def hide(self, number: int) -> Hiding:
        self._hidden = number
        return self


class Caching(BaseModel):
    """Has an attribute that is no field."""

    a: int

    @functools.cached_property
    def double(self) -> int:
        return self.a * 2


class Both(BaseModel):
    """A model of two types."""

    x: int
    y: str


class Tricky(str):
    """A value that prints like one of pydantic's errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "hunter2, input_type=hunter2])"


class Measured(BaseModel):
    """A model of a float."""

    size: float


class Anything(BaseModel):
    """A field that declares nothing."""

    payload: Any


class Page(BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]


class Names(RootModel[list[str]]):
    """A model that is a list."""


class Stubborn(BaseModel):
    """Its equality cannot be asked for."""

    a: int
    b: int = Field(0, exclude=True)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


class CaseBlind(BaseModel):
    """Its equality is its author's."""

    name: Annotated[str, AfterValidator(str.lower)]

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CaseBlind) and self.name.lower() == other.name.lower()


class Array:
    """As numpy's: comparing it gives no truth."""

    def __init__(self, *values: int) -> None:
        self.values = list(values)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return Array()

    def __bool__(self) -> bool:
        raise ValueError

    def __repr__(self) -> str:
        return f"Array{self.values}"


Arrayed = Annotated[Array, PlainValidator(lambda values: Array(*values)), PlainSerializer(lambda a: a.values)]
Truncated = Annotated[Array, PlainValidator(lambda values: Array(*values)), PlainSerializer(lambda a: a.values[:1])]

Dice = Annotated[
    random.Random,
    PlainValidator(lambda _: random.Random(0)),
    PlainSerializer(lambda dice: dice.getstate()[1][1]),
]
"""Neither an equality nor an attribute tells two of them apart."""


@dataclass
class Point:
    """A dataclass."""

    x: int
    tags: set[str] = field(default_factory=set)


@dataclass
class Point3(Point):
    """Derived from it."""

    z: int = 0


@dataclass
class Derived:
    """A field that no constructor takes."""

    x: int
    made: int = field(init=False, default=0)


@dataclass
class Cached:
    """A field that does not count."""

    x: int
    seen: int = field(default=0, init=False, compare=False)


@dataclass(eq=False)
class Nameless:
    """A dataclass without equality."""

    x: int
    made: int = field(init=False, default=0)


@pydantic_dataclass
class Checked:
    """A dataclass of pydantic's."""

    data: bytes
    at: datetime


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: str


class Row(TypedDict):
    """A typed dict."""

    id: int
    note: typing.NotRequired[str | None]


class Table(TypedDict, total=False):
    """Of others."""

    rows: list[Row]


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"


class Level(enum.IntEnum):
    """One of numbers."""

    LOW = 1


class Word(enum.StrEnum):
    """One of texts."""

    YES = "yes"


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


class Whole(int):
    """A number of a class of its own."""


def set_to(value: Any, **attributes: Any) -> Any:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def make(kind: Any, **values: Any) -> Any:
    """An instance, whatever pydantic's plugin-less types say of its fields."""
    return kind(**values)


def not_awaited() -> Any:
    async def give() -> None: ...

    made = give()
    made.close()  # otherwise Python warns of it
    return made


def deep() -> Any:
    value: Any = []
    for _ in range(900):
        value = [value]
    return value


def tagged(value: Any) -> str:
    return type(value).__name__ if isinstance(value, BaseModel) else "First"


AT = datetime(2024, 10, 27, 2, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

CARRIED: dict[str, tuple[Any, Any]] = {
    "aliases": (Aliased, Aliased.model_validate({"userId": 1, "a": {"b": 2}, "c": 3})),
    "aliases inside": (dict[str, list[Aliased]], {"x": [Aliased.model_validate({"userId": 1})]}),
    "aliases that are names of others": (Crossed, Crossed.model_validate({"one": 1, "two": 2})),
    "computed, forbidden": (Computed, Computed(side=3)),
    "extra": (Open, Open.model_validate({"a": 1, "b": [1, {"c": None}]})),
    "bytes of no text": (Blob, Blob(data=b"\xff\0", inner=[Blob(data=b"\xfe")])),
    "bytes as their author says": (Hexadecimal, Hexadecimal(data=b"\xff")),
    "bytes in a dataclass": (Checked, Checked(b"\xff", AT)),
    "typed dict": (Row, {"id": 1}),
    "typed dicts inside": (dict[str, Table] | None, {"a": {"rows": [{"id": 1, "note": None}]}}),
    "typed dict, annotated": (Annotated[list[Row], Field(min_length=1)], [{"id": 1, "note": "x"}]),
    "told apart by an aliased field": (
        list[Annotated[Cat | Fish, Field(discriminator="kind")]],
        [make(Fish), make(Cat, lives=3)],
    ),
    "told apart by a function": (
        Annotated[Annotated[First, Tag("First")] | Annotated[Second, Tag("Second")], Discriminator(tagged)],
        First(x=1),
    ),
    "a class of the union": (Animal | Dog, Dog(name="rex", tricks=2)),
    "excluded, at its default": (Excluding, make(Excluding, name="a")),
    "private, at its default": (Hiding, Hiding(a=1)),
    "cached": (Caching, set_to(Caching(a=1), double=2)),
    "generic": (Page[Animal], Page[Animal](items=[Animal(name="a")])),
    "generic, its parameter left out": (Page[Animal], Page(items=[Animal(name="a")])),
    "root model": (Names, Names(["a"])),
    "type variable": (T, [1, {"a": None}]),
    "json in a text": (Json[list[int]], [1]),
    "equality that raises": (Stubborn, make(Stubborn, a=1)),
    "equality of the author's": (CaseBlind, CaseBlind.model_construct(name="Ann")),
    "equality without a truth": (Arrayed, Array(1, 2)),
    "arrays inside": (dict[str, Arrayed], {"a": Array(3)}),
    "no equality": (Nameless, Nameless(1)),
    "not compared": (Cached, set_to(Cached(1), seen=4)),
    "dataclass": (Point, Point(1, {"a"})),
    "dataclass, made by itself": (Derived, Derived(1)),
    "named tuple": (Pair, Pair(1, "a")),
    "sequence": (Sequence[int], [1, 2]),
    "deque": (deque[int], deque([1, 2])),
    "path": (Path, Path("/tmp/ä")),
    "address": (IPv4Address, IPv4Address("127.0.0.1")),
    "fraction": (Fraction, Fraction(1, 3)),
    "optional, inside": (dict[str, list[datetime | None] | None], {"a": [AT, None], "b": None}),
    "minus zero": (float, -0.0),
    "whole under float": (float, 3),
    "great integer": (int, 10**4299),
    "small fraction": (Decimal, Decimal("-0.000")),
    "zone": (datetime, AT.astimezone(BERLIN)),
    "zone, second time": (datetime, datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)),
    "time with an offset": (time, time(1, 2, tzinfo=timezone(timedelta(hours=-3)))),
    "duration": (timedelta, timedelta(days=400, microseconds=1)),
    "text with surrogates": (str, "a\ud800"),
    "names with surrogates": (dict[str, Any], {"a\ud800": ["\udfff"], "\ufffd": 1}),
    "names with surrogates, undeclared": (Any, {"a\ud800": {"b\udc00": "\ufffd"}}),
    "replacement characters": (Any, {"\ufffd": "\ufffd"}),
    "names that are numbers": (dict[int, str], {1: "a", 2: "b"}),
    "under a class of its own": (Word, Word.YES),
    "plain": (Any, {"a": [1, 2.5, None, True, "x", -0.0, [], {}]}),
}
"""What comes back as it was: equal, and of its type."""

AS_DECLARED: dict[str, tuple[Any, Any, Any]] = {
    "text of an enumeration": (str, Word.YES, "yes"),
    "number of an enumeration": (int, Level.LOW, 1),
    "text": (str, Text("a"), "a"),
    "number": (int, Whole(3), 3),
    "default dict": (dict[str, list[int]], defaultdict(list, a=[1]), {"a": [1]}),
    "ordered dict": (dict[str, int], OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "counter": (dict[str, int], Counter("aab"), {"a": 2, "b": 1}),
    "tuple": (Any, (1, (2, [3])), [1, [2, [3]]]),
    "tuple inside": (dict[str, Any], {"a": (1, 2)}, {"a": [1, 2]}),
    "tuple in a field": (Anything, Anything(payload=(1,)), Anything(payload=[1])),
    "generator": (Iterable[int], (n for n in (1, 2)), [1, 2]),
    "whole under float, inside": (dict[str, float], {"a": 1}, {"a": 1.0}),
}
"""What comes back as what was declared, and is equal to what it was; only where nothing is, a tuple is a list."""

REFUSED: dict[str, tuple[Any, Callable[[], Any], str]] = {
    "a subclass under its base": (Animal, lambda: Dog(name="rex", tricks=3), "Annotate Dog itself"),
    "a subclass inside": (dict[str, list[Animal]], lambda: {"a": [Dog(name="r")]}, r"at \['a'\]\[0\]\. Annotate Dog"),
    "dataclass under its base": (Point, lambda: Point3(1, z=2), "Point3 would come back as a Point"),
    "look-alikes": (First | Second, lambda: Second(x=1), "discriminator"),
    "secret": (SecretStr, lambda: SecretStr("hunter2"), "asterisks"),
    "secret inside": (dict[str, SecretStr], lambda: {"a": SecretStr("hunter2")}, "asterisks"),
    "text like bytes": (bytes | str, lambda: "abcd", "model of its own"),
    "bytes like text": (str | bytes, lambda: b"abcd", "model of its own"),
    "text like a date": (date | str, lambda: "2024-01-01", r"Annotated\[\.\.\.,"),
    "excluded": (Excluding, lambda: Excluding(name="a", token="hunter2"), r"at \.token\. Is it excluded"),
    "private": (Hiding, lambda: Hiding(a=1).hide(7), r"at \._hidden\. Is it excluded"),
    "made by nobody": (Derived, lambda: set_to(Derived(1), made=5), r"at \.made\. Is it excluded"),
    "made by nobody, no equality": (Nameless, lambda: set_to(Nameless(1), made=5), r"at \.made"),
    "excluded, equality that raises": (Stubborn, lambda: Stubborn(a=1, b=2), r"at \.b"),
    "changed by its validator": (
        Annotated[int, BeforeValidator(lambda n: n + 1)],
        lambda: 1,
        "changed by a validator",
    ),
    "a validator that breaks": (
        Annotated[int, BeforeValidator(lambda n: {}[n])],
        lambda: 1,
        "cannot be carried",
    ),
    "another type, with a text of ours": (int, lambda: "hunter2, input_type=x, input_type=hunter2", "Expected `int`"),
    "what shows no difference": (Dice, lambda: random.Random(1), "another value"),
    "arrays cut short": (Truncated, lambda: Array(1, 2), "would come back"),
    "extra that is no JSON": (Open, lambda: Open.model_validate({"a": 1, "b": AT}), "at .b"),
    "names that collide": (Any, lambda: {1: "a", "1": "b"}, "declare the keys"),
    "numbers as names": (Any, lambda: {1: "a"}, "declare the keys"),
    "moment": (Any, lambda: AT, "-> datetime"),
    "moment inside": (dict[str, Any], lambda: {"a": [AT]}, r"at \['a'\]\[0\]\. Declare .*-> datetime"),
    "moment in a field": (Anything, lambda: Anything(payload=AT), r"at \.payload"),
    "model": (Any, lambda: Animal(name="a"), "-> Animal"),
    "set": (Any, lambda: {1}, "-> set"),
    "decimal": (Any, lambda: Decimal(1), "-> Decimal"),
    "enumeration": (Any, lambda: Colour.RED, "-> Colour"),
    "named tuple": (Any, lambda: Pair(1, "a"), "-> Pair"),
    "identifier": (Any, lambda: UUID(int=1), "-> UUID"),
    "bytes": (Any, lambda: b"ab", "-> bytes|model of its own"),
    "tuple under a sequence": (Sequence[int], lambda: (1, 2), "-> tuple"),
    "truth under int": (int, lambda: True, "bool would come back as a int"),
    "fraction under int": (int, lambda: 2.0, "Expected `int`"),
    "great whole under float": (float, lambda: 2**53 + 1, "int would come back as a float"),
    "offset with seconds": (datetime, lambda: AT.astimezone(timezone(timedelta(seconds=30))), "another datetime"),
    "second time, no zone": (datetime, lambda: AT.replace(tzinfo=None, fold=1), "another datetime"),
    "time of a zone": (time, lambda: time(1, 2, tzinfo=BERLIN), "another time"),
    "not finite": (float, lambda: float("nan"), "NaN"),
    "not finite, inside": (Any, lambda: {"a": float("inf")}, "Infinity"),
    "not finite, in a model": (Measured, lambda: Measured(size=float("-inf")), "Infinity"),
    "greater than any parser": (Any, lambda: 10**4300, "4300 digits"),
    "another type": (int, lambda: "seven", r"type int: Expected `int` \[input_type=str\]$"),
    "another type, inside": (
        Measured,
        lambda: Measured.model_construct(size="a"),
        r": Expected `float` \[field_name='size', ",
    ),
    "others of another type": (
        Both,
        lambda: Both.model_construct(x=Tricky(), y=1),
        r": Expected `int` \[field_name='x', and more, the last with input_type=int\]$",
    ),
    "a value like a type": (
        Both,
        lambda: Both.model_construct(x=Tricky(), y="b"),
        r"\[field_name='x', input_type=Tricky\]$",
    ),
    "no JSON": (Any, object, "Unable to serialize"),
    "not awaited": (Any, not_awaited, "coroutine.*an `await` is missing"),
    "not awaited, inside": (dict[str, int], lambda: {"a": not_awaited()}, "an `await` is missing"),
    "no type": (Any, lambda: [int], "Unable to serialize"),
    "too deep": (Any, deep, "depth|deep"),
}
"""What does not come back as it was, and a word of what to do."""


@pytest.mark.parametrize("which", CARRIED)
def test_it_comes_back_as_it_was(which: str) -> None:
    annotation, value = CARRIED[which]
    codec = Codec[Any](annotation, "it")
    text, back = codec.round_trip(value)
    assert codec.dump(value) == text
    for one in (back, codec.load(text)):
        assert repr(one) == repr(value) or one == value or (one.astimezone(UTC) == value.astimezone(UTC))
        if which != "whole under float":
            assert type(one).__name__.partition("[")[0] == type(value).__name__.partition("[")[0]


@pytest.mark.parametrize("which", AS_DECLARED)
def test_it_comes_back_as_what_was_declared(which: str) -> None:
    """Live as in a replay."""
    annotation, value, expected = AS_DECLARED[which]
    codec = Codec[Any](annotation, "it")
    text, back = codec.round_trip(value)
    for one in (back, codec.load(text)):
        assert one == expected
        assert type(one) is type(expected)


def test_an_iterator_comes_back_as_one() -> None:
    """With what was left in it."""
    codec = Codec[Any](Iterator[int], "it")
    text, back = codec.round_trip(iter([1, 2]))
    assert (next(back), list(back), list(codec.load(text))) == (1, [2], [1, 2])


@pytest.mark.parametrize("which", REFUSED)
def test_what_would_not_is_refused_where_it_is_made(which: str) -> None:
    """The error names the place and says what to write, and nothing of what is there."""
    annotation, make, said = REFUSED[which]
    codec = Codec[Any](annotation, "the result of step 'give'")
    for carry in (codec.dump, codec.round_trip):
        with pytest.raises(SerializationError, match=said) as raised:
            carry(make())
        assert str(raised.value).startswith("the result of step 'give' ")
        cause = raised.value.__cause__
        assert cause is None or cause.__context__ is None, "other ways to write it, which failed before, are no causes"
        assert "hunter2" not in str(raised.value)


def test_aliases_are_read_where_somebody_else_wrote_them() -> None:
    """A row that SQL has planted; ours have the names."""
    codec = Codec[Aliased](Aliased, "it")
    assert '"user_id":1' in codec.dump(Aliased.model_validate({"userId": 1}))
    assert codec.load('{"userId": 1}').user_id == 1


UNDECLARED: dict[str, tuple[Any, Any]] = {
    "model": (Dog(name="rex", tricks=2), Dog),
    "moment": (AT, datetime),
    "enumeration": (Colour.RED, Colour),
    "text of an enumeration": (Word.YES, Word),
    "named tuple": (Pair(1, "a"), Pair),
    "bytes": (b"\xff", bytes),
    "plain": ({"a": [1, None]}, Any),
    "default dict": (defaultdict(int, a=1), Any),
}


@pytest.mark.parametrize("which", UNDECLARED)
def test_a_stream_value_is_for_readers_who_declare_what_it_is(which: str) -> None:
    """Nothing is declared where it is written, and nothing of it goes on there."""
    value, declared = UNDECLARED[which]
    assert Codec[Any](declared, "it").load(dump_undeclared(value, "a stream's value")) == value


@pytest.mark.parametrize("value", [{"a": AT}, [Animal(name="a")], Excluding(name="a", token="hunter2"), object()])
def test_a_stream_value_that_no_reader_could_declare_is_refused(value: Any) -> None:
    """Not by its own class, that is."""
    with pytest.raises(SerializationError, match="a stream's value") as raised:
        dump_undeclared(value, "a stream's value")
    assert "hunter2" not in str(raised.value)


# -- any type --------------------------------------------------------------------------------------------------------

SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers() | st.booleans()),
    (str, st.text(st.characters())),
    (float, st.floats()),
    (bool, st.booleans()),
    (bytes, st.binary()),
    (datetime, st.datetimes(timezones=st.none() | st.timezones())),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals()),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Dog, st.builds(Dog, name=st.text(), tricks=st.integers())),
    (Point, st.builds(Point, st.integers(), st.sets(st.text()))),
    (First, st.builds(First, x=st.integers())),
    (Second, st.builds(Second, x=st.integers())),
    (Blob, st.builds(Blob, data=st.binary())),
    (Pair, st.builds(Pair, st.integers(), st.text())),
]

Typed = tuple[Any, st.SearchStrategy[Any]]


def _list(one: Typed) -> Typed:
    inner: Any = one[0]
    return list[inner], st.lists(one[1], max_size=3)


def _dict(one: Typed) -> Typed:
    inner: Any = one[0]
    return dict[str, inner], st.dictionaries(st.text(), one[1], max_size=3)


def _optional(one: Typed) -> Typed:
    return one[0] | None, st.none() | one[1]


def _union(two: tuple[Typed, Typed]) -> Typed:
    return two[0][0] | two[1][0], two[0][1] | two[1][1]


def _tuple(two: tuple[Typed, Typed]) -> Typed:
    first: Any = two[0][0]
    second: Any = two[1][0]
    return tuple[first, second], st.tuples(two[0][1], two[1][1])


TYPES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        inner.map(_list)
        | inner.map(_dict)
        | inner.map(_optional)
        | st.tuples(inner, inner).map(_union)
        | st.tuples(inner, inner).map(_tuple)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_of_any_type_it_comes_back_as_it_was_or_is_refused(data: st.DataObject) -> None:
    """Equal, of the same types all the way down, and the same again however often it goes round."""
    annotation, values = data.draw(TYPES)
    value = data.draw(values)
    codec = Codec[Any](annotation, "it")
    try:
        text, back = codec.round_trip(value)
    except SerializationError:
        return
    assert codec.load(codec.dump(back)) == back
    assert shape(back) == shape(value)
    assert codec.load(text) == back


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.dates(),
        lambda inner: (
            st.lists(inner)
            | st.tuples(inner)
            | st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), inner)
            | st.sets(st.integers())
        ),
        max_leaves=8,
    )
)
def test_undeclared_it_is_json_or_refused(value: Any) -> None:
    """A tuple is a list; nothing else changes."""
    codec = Codec[Any](Any, "it")
    try:
        text, back = codec.round_trip(value)
    except SerializationError:
        return
    assert shape(back) == shape(_as_lists(value))
    assert shape(codec.load(text)) == shape(back)


def shape(value: Any) -> Any:
    """A value with the types of all its parts; of a moment, its offset and not its zone."""
    kind = type(value)
    if kind is dict:
        return kind, [(shape(key), shape(one)) for key, one in value.items()]
    if kind in {list, tuple}:
        return kind, [shape(one) for one in value]
    if kind is set:
        return kind, sorted(map(repr, value))
    if kind in {datetime, time}:
        return kind, value.replace(tzinfo=None), value.utcoffset()
    if isinstance(value, BaseModel | Point):
        return kind, shape(vars(value))
    return kind, repr(value)


def _as_lists(value: Any) -> Any:
    if type(value) in {list, tuple}:
        return [_as_lists(one) for one in value]
    return {key: _as_lists(one) for key, one in value.items()} if type(value) is dict else value

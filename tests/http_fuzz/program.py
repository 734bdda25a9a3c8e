"""An application with one endpoint of each kind, which the fuzzing tier asks for anything."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID  # noqa: TC003 (pydantic looks it up)

from pydantic import BaseModel, Field

from dbosflow import Stream, create_token_async, read_input_async, recv_async, requests, workflow, write_stream_async
from dbosflow.errors import RequestRefusedError
from dbosflow.http import (
    Guards,
    StartCall,
    Topic,
    expose,
    expose_messages,
    expose_openapi,
    expose_tokens,
)


class Colour(Enum):
    """Some words."""

    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(BaseModel):
    """The other one."""

    kind: Literal["dog"]
    name: str = Field(alias="called")


class Order(BaseModel):
    """Of everything something."""

    id: UUID
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    colour: Colour | None = None
    price: Decimal = Decimal(1)
    data: bytes = b""
    extra: dict[str, Any] = {}
    parts: list[Order] = []


notes = Stream[str, Order]("notes")
chat = Stream[Order, None]("chat")


@workflow(name="fuzz.order")
async def order(order: Order, shop: str, user: str, count: Annotated[int, Field(ge=0, le=3)] = 1) -> Order:
    """Streams some texts, and gives its order back."""
    writer = notes.writer()
    for _ in range(count):
        await writer.write_async(f"{shop} {user}")
    return order


@workflow(name="fuzz.anything")
async def anything(value: Any, number: float = 0.0, text: str = "") -> Any:
    """Gives back what it gets."""
    return {"value": value, "number": number, "text": text}


@workflow(name="fuzz.talking", inputs=[chat])
async def talking() -> None:
    """Takes messages, requests and an input, and never ends."""
    token = await create_token_async()
    await write_stream_async("tokens", token.id)
    async for request in requests("double", type=int, reply=int):
        await request.reply(2 * request.value)
    await recv_async("anything")
    async for _ in read_input_async(chat):
        pass


def with_user(call: StartCall) -> dict[str, str]:
    """Refuses some, and names the user."""
    if call.arguments["shop"].startswith("x"):
        msg = "no shop begins with x"
        raise RequestRefusedError(msg)
    return {"user": "fuzz"}


guards = Guards(before=[with_user], after=[lambda order: order], sets=["user"])
orders = expose(order, "/shops/{shop}/orders", stream=notes, guards=guards, topics=[Topic("note", type=Order)])
finals = expose(order, "/shops/{shop}/finals", method="PUT", mode="aggregate", guards=guards, wait=5)
echo = expose(anything, "/echo", mode="aggregate", wait=5)
talk = expose_messages(
    talking,
    "/talks/{workflow_id}",
    inputs=[chat],
    topics=[Topic("anything"), Topic("order", type=Order), Topic("double", type=int, reply=int)],
)
tokens = expose_tokens(choices={"Yes": True, "No & never": False})
EXPOSED = (orders, finals, echo, talk, tokens)
document = expose_openapi(*EXPOSED, title="Everything")

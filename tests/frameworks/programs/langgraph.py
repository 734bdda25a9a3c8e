"""LangGraph: two nodes of one superstep, each with steps, and one behind them."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph

from dbosflow import step, workflow


class State(TypedDict):
    """What the nodes have done."""

    done: Annotated[list[str], operator.add]


@step
async def reserve(item: str) -> str:
    return f"reserved {item}"


@step
async def charge(item: str) -> str:
    return f"charged {item}"


async def tea(state: State) -> dict[str, list[str]]:
    return {"done": [await reserve("tea"), await charge("tea")]}


async def milk(state: State) -> dict[str, list[str]]:
    return {"done": [await reserve("milk"), await charge("milk")]}


async def close(state: State) -> dict[str, list[str]]:
    return {"done": [await charge(f"all of {len(state['done'])}")]}


@workflow(name="langgraph program")
async def program() -> list[str]:
    """A graph that is compiled in the body: it holds nothing."""
    graph = StateGraph(State)
    for name, node in (("tea", tea), ("milk", milk), ("close", close)):
        graph.add_node(name, node)
    for name in ("tea", "milk"):
        graph.add_edge(START, name)
        graph.add_edge(name, "close")
    graph.add_edge("close", END)
    found = await graph.compile().ainvoke({"done": []})
    return sorted(found["done"])

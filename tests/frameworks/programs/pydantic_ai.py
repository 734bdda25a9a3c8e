"""pydantic-ai: a model that is a function, and an agent that calls three tools at a time, whose parts are steps."""

from __future__ import annotations

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from dbosflow import step, workflow


@step
async def reserve(item: str) -> str:
    return f"reserved {item}"


@step
async def charge(item: str) -> str:
    return f"charged {item}"


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Asks for three tools, and is done when it has their results."""
    if len(messages) > 1:
        return ModelResponse(parts=[TextPart("done")])
    calls = [("buy", "tea", "a"), ("buy", "milk", "b"), ("look_up", "cups", "c")]
    return ModelResponse(
        parts=[ToolCallPart(tool_name=tool, args={"item": item}, tool_call_id=call) for tool, item, call in calls]
    )


agent = Agent(FunctionModel(answer))


@agent.tool_plain
async def buy(item: str) -> str:
    """Two steps."""
    return f"{await reserve(item)}, {await charge(item)}"


@agent.tool_plain
async def look_up(item: str) -> str:
    """One."""
    return await reserve(item)


@workflow(name="pydantic-ai program")
async def program() -> str:
    """A step before, the agent, and a step behind it, which the body itself takes."""
    await reserve("a table")
    answered = await agent.run("shop for me")
    return f"{answered.output}, {await charge('all')}"

"""openai-agents: a fake model, and a tool called twice at a time. Its tasks have no names: we name what is done."""

from __future__ import annotations

from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from dbosflow import branch, step, workflow

set_tracing_disabled(disabled=True)


@step
async def reserve(item: str) -> str:
    return f"reserved {item}"


@step
async def charge(item: str) -> str:
    return f"charged {item}"


class Fake(Model):
    """Asks for two tools, and is done when it has their results."""

    async def get_response(self, *args: Any, **options: Any) -> ModelResponse:
        given = options.get("input", args[1] if len(args) > 1 else "")
        if isinstance(given, list) and any("call_id" in item for item in given):
            text = ResponseOutputText(text="done", type="output_text", annotations=[])
            said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
            return ModelResponse(output=[said], usage=Usage(), response_id=None)
        calls: list[Any] = [
            ResponseFunctionToolCall(arguments=f'{{"item":"{item}"}}', call_id=item, name="buy", type="function_call")
            for item in ("tea", "milk")
        ]
        return ModelResponse(output=calls, usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


@function_tool
async def buy(item: str) -> str:
    """Two steps."""
    with branch(f"buy:{item}"):
        return f"{await reserve(item)}, {await charge(item)}"


@workflow(name="openai-agents program")
async def program() -> str:
    """A step before, the agent, and a step behind it, which the body itself takes."""
    await reserve("a table")
    answered = await Runner.run(Agent(name="shopper", model=Fake(), tools=[buy]), "shop for me")
    return f"{answered.final_output}, {await charge('all')}"

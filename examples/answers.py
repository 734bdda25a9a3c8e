"""A workflow as a streaming endpoint, that goes on whatever crashes.

```text
dbosflow serve --embedded examples.answers

curl -N -H 'Content-Type: application/json' -d '{"question": "To be or not to be?"}' http://127.0.0.1:8000/answers

python -m examples.answers
```
"""

import asyncio

from pydantic import BaseModel

from dbosflow import Stream, step, workflow
from dbosflow.errors import RequestRefusedError
from dbosflow.http import Guards, StartCall, expose, expose_openapi
from dbosflow.testing import run_stream

LONGEST = 1000


class Usage(BaseModel):
    """What an answer has cost."""

    words: int


words = Stream[str, Usage]("words")


@step(max_attempts=3)
async def ask_model(question: str) -> int:
    """Stands for a model. What an attempt has written that fails is taken back before the next one."""
    writer = words.writer()
    answer = f"You ask {question!r}. Who knows?".split()
    for word in answer:
        await asyncio.sleep(0.05)
        await writer.write_async(word)
    return len(answer)


@workflow
async def answer(question: str) -> Usage:
    return Usage(words=await ask_model(question))


def not_too_long(call: StartCall) -> None:
    if len(call.arguments["question"]) > LONGEST:
        msg = f"a question has at most {LONGEST} characters"
        raise RequestRefusedError(msg, 413)


answers = expose(answer, "/answers", stream=words, guards=Guards(before=[not_too_long]))
document = expose_openapi(answers, title="Answers")

if __name__ == "__main__":
    run = run_stream(answers, "To be or not to be?", http=True)  # as a client, without a network
    print(" ".join(run.chunks))
    print(run.final)

"""A FastAPI application whose answers survive everything: a page that is loaded again reads on where it was.

```text
pip install 'dbosflow[http]' fastapi
dbosflow worker examples.fast_api              # as many as you like
uvicorn examples.fast_api:app

curl -X POST 'localhost:8000/stories?topic=crashes'      # {"id": "..."}
curl -N localhost:8000/stories/ID                        # again, with -H 'Last-Event-ID: 3'
```
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from starlette.responses import Response

from dbosflow import Engine, Stream, step, workflow
from dbosflow.errors import WorkflowNotFoundError
from dbosflow.http import create_app, stream_response

words = Stream[str, int]("words")
engine = Engine(executes=False)  # workers run the workflows: a server that stops stops none of them


@step(max_attempts=3, interval=0.5)
async def tell(topic: str) -> int:
    """Stands for a language model. If it fails in the middle, its readers are told to take its words back."""
    writer = words.writer()
    told = f"Once upon a time there was a database that {topic} could not harm".split()
    for word in told:
        await writer.write_async(word)
        await asyncio.sleep(0.05)
    return len(told)


@workflow
async def story(topic: str) -> int:
    return await tell(topic)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/stories")
async def start(topic: str) -> dict[str, str]:
    handle = await engine.start_async(story, topic)
    return {"id": handle.workflow_id}


@app.get("/stories/{story_id}")
async def read(story_id: str, request: Request) -> Response:
    try:
        return await stream_response(engine, story_id, words, request)
    except WorkflowNotFoundError:
        raise HTTPException(404) from None


# The same and more, ready-made: /durable/workflows/{id}/streams/words, as events, lines or pages.
app.mount("/durable", create_app(engine, streams=[words], workflows=[story]))

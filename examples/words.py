"""A workflow for a worker: two steps, two streams.

```text
dbosflow worker examples.words --queue default

python -m examples.words "Any text will do."
```
"""

import asyncio
import sys

from dbosflow import Engine, step, workflow, write_stream_async


@step
async def tokens(text: str) -> list[str]:
    return text.split()


@step(max_attempts=3, interval=0.5)
async def shout(token: str) -> str:
    await asyncio.sleep(0.2)  # stands for whatever takes its time
    return token.upper()


@workflow
async def shout_words(text: str) -> int:
    """Streams the text's words in capitals, and how far it is."""
    words = await tokens(text)
    for number, word in enumerate(words, start=1):
        await write_stream_async("words", await shout(word))
        await write_stream_async("progress", {"done": number, "of": len(words)})
    return len(words)


def main() -> None:
    """Enqueues a workflow for whichever worker is there, and follows its stream."""
    with Engine(executes=False) as engine:
        handle = engine.start(shout_words, " ".join(sys.argv[1:]) or "nothing is lost and nothing comes twice")
        print(f"workflow {handle.workflow_id}", file=sys.stderr)
        for word in engine.read_stream(handle.workflow_id, "words"):
            print(word, flush=True)


if __name__ == "__main__":
    main()

"""Asks a server with OpenAI's client, and prints the texts that it got: ``python openai_client.py URL``."""

from __future__ import annotations

import json
import sys


def main(url: str) -> None:
    """A chat in chunks and as a whole; a response in the background, and again from the middle of it."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    question = [{"role": "user", "content": "hello"}]
    chunks = client.chat.completions.create(model="m", messages=question, stream=True)
    print(json.dumps("".join(chunk.choices[0].delta.content or "" for chunk in chunks)))
    whole = client.chat.completions.create(model="m", messages=question)
    print(json.dumps(whole.choices[0].message.content))

    events = list(client.responses.create(model="m", input="hello", background=True, stream=True))
    response_id = events[0].response.id
    print(json.dumps(events[-1].response.output_text))
    for index, event in enumerate(events):
        again = client.responses.retrieve(response_id, stream=True, starting_after=event.sequence_number)
        assert [one.model_dump() for one in again] == [one.model_dump() for one in events[index + 1 :]]
    begun = client.responses.create(model="m", input="wait", background=True)
    print(json.dumps(client.responses.cancel(begun.id).status))


if __name__ == "__main__":
    main(sys.argv[1])

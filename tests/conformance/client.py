"""Reads a stream with the official client, and prints what it got: ``python client.py URL COUNT``."""

from __future__ import annotations

import json
import sys
from itertools import islice


def main(url: str, count: int) -> None:
    """Reads the stream once in each of the live modes."""
    from durable_streams import stream

    modes = ("long-poll", "sse")
    for live in modes:
        with stream(url, offset="-1", live=live) as response:
            print(json.dumps(list(islice(response.iter_json(), count))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

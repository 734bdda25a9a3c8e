"""Commits rows, starts and messages in transactions of its own, until it is done or killed; it runs nothing.

Its options: ``url``, the ``sender``, its ``receivers``, and the ``count`` of transactions in all. It begins where
the table ``sent`` says that it has come to. It says ``{"ready": true}``, begins at the next
line, and says when it is done.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import psycopg

from dbosflow import Engine
from tests.behaviour.programs.messaging import receiving
from tests.behaviour.worker_pool import QUEUE


def main(options: dict[str, Any]) -> None:
    """For each number a row, a message with it to each receiver, a start under an id of its own, and one without."""
    sender = options["sender"]
    with Engine(options["url"], executes=False) as engine, psycopg.connect(options["url"]) as connection:
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        ((first,),) = connection.execute("SELECT count(*) FROM public.sent WHERE sender = %s", [sender]).fetchall()
        for number in range(first, options["count"]):
            for receiver in options["receivers"]:
                engine.send_in(connection, receiver, [sender, number], "t")
            engine.start_in(connection, receiving.options(workflow_id=f"{sender}-{number}", queue=QUEUE), 0)
            engine.start_in(connection, receiving.options(queue=QUEUE, attributes={"of": f"{sender}-{number}"}), 0)
            connection.execute("INSERT INTO public.sent VALUES (%s, %s)", [sender, number])
            connection.commit()
    print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""A workflow that never ends: it receives readings for as long as anybody sends some, and keeps a short history.

```text
dbosflow worker examples.thermostat --queue default

python -m examples.thermostat kitchen 19.5 20.4 21.3
```

Kill the worker whenever you like: the next one replays the readings of the current iteration, and no older one.
"""

import sys

from dbosflow import Engine, continue_as_new, recv_async, set_event_async, step, workflow, write_stream_async

READINGS = 100
"""Readings of one iteration."""


@step(max_attempts=5, interval=0.5)
async def switch(room: str, *, on: bool) -> bool:
    print(f"the heating of the {room} is {'on' if on else 'off'}", flush=True)  # stands for a call to a device
    return on


@workflow
async def thermostat(room: str, target: float, *, heats: bool = False) -> None:
    """Heats a room up to its target, and tells what it has done."""
    for _ in range(READINGS):
        temperature = await recv_async("temperature", type=float)
        wanted = temperature < target
        if wanted != heats:
            heats = await switch(room, on=wanted)
            await write_stream_async("switched", {"at": temperature, "on": heats})
        await set_event_async("temperature", temperature)
    continue_as_new(room, target, heats=heats)


def main() -> None:
    """Sends readings of a room to its thermostat, which is started by the first call and found by all others."""
    room, *readings = sys.argv[1:]
    with Engine(executes=False) as engine:
        engine.start(thermostat.options(workflow_id=f"thermostat-{room}", queue="default"), room, 21.0)
        for reading in readings:
            engine.send(f"thermostat-{room}", float(reading), "temperature")


if __name__ == "__main__":
    main()

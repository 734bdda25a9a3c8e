"""A report each second, and one a month for each customer: a schedule in code, and one that a program adds.

```text
dbosflow worker examples.reports --queue default

python -m examples.reports ada
dbosflow schedule list
```

Start as many workers as you like, and kill any of them: each tick starts one report.
"""

import sys
import time

from dbosflow import Engine, Schedule, Tick, schedule, step, workflow

REPORTS = 3
"""How many the program waits for."""


@step
def collect(seconds: float) -> str:
    return f"a report about {seconds:g} s"  # stands for a query


@schedule("pulse", every=1, overlap="skip")
@workflow
def pulse(tick: Tick) -> str:
    """Reports on the time since the tick before, also if ticks were missed meanwhile."""
    before = tick.previous_at or tick.scheduled_at
    return collect((tick.scheduled_at - before).total_seconds())


@workflow
def invoice(customer: str) -> str:
    return f"an invoice for {customer}"


def main() -> None:
    """Adds the schedule of a customer, and prints the reports that its workers make."""
    (customer,) = sys.argv[1:]
    monthly = Schedule(
        f"invoice-{customer}", invoice, cron="0 9 1 * *", timezone="Europe/Oslo", args={"customer": customer}
    )
    with Engine(executes=False) as engine:
        engine.schedules.apply(monthly)
        print(engine.schedules.trigger(monthly.name).result(timeout=60))
        seen: set[str] = set()
        while len(seen) < REPORTS:
            for info in reversed(engine.list_workflows(name="pulse", status="succeeded")):
                if info.id not in seen:
                    seen.add(info.id)
                    print(f"{info.id}: {info.output}")
            time.sleep(0.2)


if __name__ == "__main__":
    main()

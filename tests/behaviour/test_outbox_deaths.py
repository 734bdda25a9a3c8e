"""Senders and relays that are killed at random: what was committed arrives once, in order, and nothing else does."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.behaviour.programs.messaging import receiving
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow import Engine
    from tests.behaviour.conftest import StartPool, StartProgram
    from tests.behaviour.program import Program

    Execute = Callable[..., list[tuple[Any, ...]]]

KILLS = 3
COUNT = 40
"""Transactions of each sender."""
SENDERS, RECEIVERS = ("a", "b"), ("r1", "r2", "r3")


def test_killed_senders_and_relays_lose_and_repeat_nothing(
    client: Engine, start_program: StartProgram, start_pool: StartPool, execute: Execute
) -> None:
    """Two relays, which are killed in turns; two senders, which begin again where they have committed."""
    execute("CREATE TABLE public.sent (sender text, number integer, PRIMARY KEY (sender, number))")
    for receiver in RECEIVERS:
        client.start(receiving.options(workflow_id=receiver, queue="nobody-serves-it"), 1)
    pool = start_pool("messaging", lease=1.0)

    def sending(sender: str) -> Program:
        program = start_program("transacting", sender=sender, receivers=RECEIVERS, count=COUNT)
        program.send()
        return program

    senders = {sender: sending(sender) for sender in SENDERS}
    for share in range(1, KILLS + 1):
        goal = random.randint(1, COUNT * share // KILLS)
        eventually(partial(has_come, execute, goal))
        name = random.choice(SENDERS)
        senders[name].kill()
        pool.kill(random.choice(pool.members))
        senders[name] = sending(name)
    eventually(lambda: execute("SELECT count(*) FROM public.sent") == [(COUNT * len(SENDERS),)])
    eventually(lambda: execute("SELECT count(*) FROM dbosflow.outbox") == [(0,)])

    for receiver in RECEIVERS:
        found = [value for (values,) in execute(MESSAGES, receiver) for value in values]
        assert len(found) == COUNT * len(SENDERS)
        for name in SENDERS:
            assert [number for sender, number in found if sender == name] == list(range(COUNT))
    names = sorted(f"{sender}-{number}" for sender in SENDERS for number in range(COUNT))
    given = execute("SELECT id FROM dbosflow.workflow WHERE id ~ '^[ab]-'")
    assert sorted(one for (one,) in given) == names
    new = execute("""SELECT value::json #>> '{}' FROM dbosflow.attribute JOIN dbosflow.workflow ON id = workflow_id""")
    assert sorted(one for (one,) in new) == names
    eventually(lambda: execute("SELECT count(*) FROM dbosflow.workflow WHERE status = 'succeeded'") == [(4 * COUNT,)])


def has_come(execute: Execute, goal: int) -> bool:
    ((count,),) = execute("SELECT count(*) FROM public.sent")
    return bool(count >= goal)


MESSAGES = 'SELECT values FROM dbosflow.stream_block WHERE workflow_id = %s ORDER BY "offset"'

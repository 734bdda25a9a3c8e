"""A transaction's rows, its record and what it writes to streams are committed together, exactly once."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from dbosflow import (
    Engine,
    close_stream,
    close_stream_async,
    current,
    recv_async,
    send_async,
    sleep,
    step,
    transaction,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import (
    ConfigurationError,
    DefinitionError,
    StepTimeoutError,
    StreamBackPressureError,
    StreamClosedError,
    TransactionError,
)
from tests.behaviour import ledger
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow.workflows import Workflow

pytestmark = pytest.mark.usefixtures("accounts")


@pytest.fixture
def accounts(database_url: str) -> None:
    """A table of the user's: accounts 0 to 9, with 100 each."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE account (id integer PRIMARY KEY, balance integer NOT NULL CHECK (balance >= 0))"
        )
        connection.execute("INSERT INTO account SELECT id, 100 FROM generate_series(0, 9) AS id")
        connection.execute("CREATE TABLE transfer (id text PRIMARY KEY)")


PATIENCE = 60.0
SLEEPING: LiteralString = """
    SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%%' AND state = 'active'"""


def balances(url: str) -> dict[int, int]:
    """What each account has that has not 100."""
    return dict(rows(url, "SELECT id, balance FROM account WHERE balance <> 100 ORDER BY id"))


@transaction
async def transfers(connection: psycopg.AsyncConnection, source: int, target: int, amount: int) -> int:
    """Moves money; returns what is left."""
    ledger.note(["transfers", current().attempt])
    await connection.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, target))
    cursor = await connection.execute(
        "UPDATE account SET balance = balance - %s WHERE id = %s RETURNING balance", (amount, source)
    )
    (left,) = await cursor.fetchone() or (0,)
    await write_stream_async("moved", amount)
    return int(left)


@transaction
def transfers_on_thread(connection: psycopg.Connection, source: int, target: int, amount: int) -> int:
    """The same on a thread."""
    ledger.note(["transfers", current().attempt])
    connection.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, target))
    cursor = connection.execute(
        "UPDATE account SET balance = balance - %s WHERE id = %s RETURNING balance", (amount, source)
    )
    (left,) = cursor.fetchone() or (0,)
    write_stream("moved", amount)
    return int(left)


@workflow
async def pays(amount: int) -> list[int]:
    return [await transfers(0, 1, amount), await transfers_on_thread.run_async(2, 3, amount)]


@workflow
def pays_on_thread(amount: int) -> list[int]:
    return [transfers.run(0, 1, amount), transfers_on_thread(2, 3, amount)]


both = pytest.mark.parametrize("flow", [pays, pays_on_thread])


@both
def test_rows_record_and_values_of_a_transaction_are_there_together(
    engine: Engine, database_url: str, flow: Workflow[[int], Any, list[int]]
) -> None:
    """Functions of both colours in workflows of both; a second start finds the records and moves nothing."""
    spec = flow.options(workflow_id="w")
    assert engine.run(spec, 30) == [70, 70]
    assert engine.run(spec, 30) == [70, 70]
    assert balances(database_url) == {0: 70, 1: 130, 2: 70, 3: 130}
    assert engine.read_stream("w", "moved").read_all() == ([30, 30], True)
    found = engine.list_steps("w")
    assert [(one.key, one.kind, one.output) for one in found] == [
        ("transfers#0", "transaction", 70),
        ("transfers_on_thread#0", "transaction", 70),
    ]
    assert [(one.attempt, one.number, one.attempts) for one in found] == [("1.1", 1, 1)] * 2
    assert disorder(database_url) == []


@both
def test_a_transaction_that_fails_leaves_its_error_and_nothing_else(
    engine: Engine, database_url: str, flow: Workflow[[int], Any, list[int]]
) -> None:
    """The rows and the values are rolled back; the error is that of the database, live and on replay."""
    with pytest.raises(psycopg.errors.CheckViolation):
        engine.run(flow.options(workflow_id="w"), 130)
    assert balances(database_url) == {}
    assert engine.read_stream("w", "moved").read_all()[0] == []
    ((key, kind, error),) = rows(database_url, "SELECT key, kind, error->>'type' FROM dbosflow.step")
    assert (key, kind, error) == ("transfers#0", "transaction", "CheckViolation")


def test_a_transaction_is_tried_again_as_a_step_is(engine: Engine, database_url: str) -> None:
    """Each failed attempt is on record, and has left nothing."""

    @transaction(max_attempts=3, interval=0)
    async def stumbles(connection: psycopg.AsyncConnection) -> str | None:
        await connection.execute("INSERT INTO transfer VALUES (%s)", (current().attempt,))
        await write_stream_async("tries", current().attempt)
        if len(ledger.noted()) < 2:
            ledger.note("failed")
            msg = "not yet"
            raise ConnectionError(msg)
        return current().attempt

    @workflow(name="stumbling")
    async def stumbling() -> str | None:
        return await stumbles()

    assert engine.run(stumbling.options(workflow_id="w")) == "1.3"
    assert rows(database_url, "SELECT id FROM transfer") == [("1.3",)]
    assert engine.read_stream("w", "tries").read_all() == (["1.3"], True)
    kinds = [one.kind for one in engine.list_steps("w")]
    assert kinds == ["attempt", "attempt", "transaction"]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_conflict_begins_the_transaction_anew_and_counts_the_attempts(
    engine: Engine, database_url: str, isolation: Any
) -> None:
    """The record has the number of the attempt that was committed, and there is no record of the others."""
    with psycopg.connect(database_url, autocommit=True) as other:

        @transaction(isolation=isolation)
        def reads_then_writes(connection: psycopg.Connection) -> int:
            (found,) = connection.execute("SELECT balance FROM account WHERE id = 0").fetchone() or (0,)
            if not ledger.noted():
                ledger.note("interfered")
                other.execute("UPDATE account SET balance = balance + 7 WHERE id = 0")
            connection.execute("UPDATE account SET balance = %s WHERE id = 0", (found + 1,))
            return int(found)

        @workflow(name="conflicting")
        def conflicting() -> int:
            return reads_then_writes()

        assert engine.run(conflicting.options(workflow_id="w")) == 107
    assert balances(database_url) == {0: 108}
    assert [(one.kind, one.attempt) for one in engine.list_steps("w")] == [("transaction", "1.2")]


def test_the_number_of_conflicts_is_bounded(engine: Engine, database_url: str) -> None:
    """Then the conflict is the outcome of the attempt."""
    with psycopg.connect(database_url, autocommit=True) as other:

        @transaction(isolation="repeatable read", max_conflicts=2)
        def always_too_late(connection: psycopg.Connection) -> None:
            ledger.note("begun")
            connection.execute("SELECT balance FROM account WHERE id = 0")
            other.execute("UPDATE account SET balance = balance + 1 WHERE id = 0")
            connection.execute("UPDATE account SET balance = 0 WHERE id = 0")

        @workflow(name="too_late")
        def too_late() -> None:
            always_too_late()

        with pytest.raises(psycopg.errors.SerializationFailure):
            engine.run(too_late)
    assert len(ledger.noted()) == 3
    assert balances(database_url) == {0: 103}


def test_two_transactions_that_wait_for_each_other_are_both_committed(engine: Engine, database_url: str) -> None:
    """Postgres ends one of them, which begins anew."""
    meeting = threading.Barrier(2)

    @transaction
    def crosses(connection: psycopg.Connection, first: int, second: int) -> None:
        connection.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", (first,))
        if len(ledger.noted()) < 2:
            ledger.note(first)
            meeting.wait(60)
        connection.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", (second,))

    @workflow(name="crossing")
    def crossing(first: int, second: int) -> None:
        crosses(first, second)

    handles = [engine.start(crossing, 0, 1), engine.start(crossing, 1, 0)]
    for handle in handles:
        handle.result(timeout=60)
    assert balances(database_url) == {0: 102, 1: 102}


def test_a_read_only_transaction_reads_and_its_record_goes_by_the_journal(engine: Engine, database_url: str) -> None:
    """Postgres refuses its writes, and the engine those to streams."""

    @transaction(read_only=True, isolation="serializable")
    async def looks(connection: psycopg.AsyncConnection, do: str) -> int:
        if do == "write":
            await connection.execute("UPDATE account SET balance = 0")
        if do == "stream":
            await write_stream_async("k", 1)
        cursor = await connection.execute("SELECT sum(balance) FROM account")
        (total,) = await cursor.fetchone() or (0,)
        return int(total)

    @workflow(name="looking")
    async def looking(do: str) -> int:
        return await looks(do)

    assert engine.run(looking.options(workflow_id="w"), "look") == 1000
    assert [one.kind for one in engine.list_steps("w")] == ["transaction"]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        engine.run(looking, "write")
    with pytest.raises(TransactionError, match="read-only"):
        engine.run(looking, "stream")
    assert balances(database_url) == {}


@pytest.mark.parametrize("on_thread", [False, True])
def test_a_timeout_rolls_the_transaction_back(engine: Engine, database_url: str, on_thread: bool) -> None:  # noqa: FBT001
    """The statement under way is cancelled, of a sync function too."""

    @transaction(timeout=0.3)
    async def dawdles(connection: psycopg.AsyncConnection) -> None:
        await connection.execute("UPDATE account SET balance = 0 WHERE id = 0")
        await connection.execute("SELECT pg_sleep(60)")

    @transaction(timeout=0.3)
    def dawdles_on_thread(connection: psycopg.Connection) -> None:
        connection.execute("UPDATE account SET balance = 0 WHERE id = 0")
        connection.execute("SELECT pg_sleep(60)")

    @workflow(name="dawdling")
    async def dawdling() -> None:
        await (dawdles_on_thread.run_async() if on_thread else dawdles())

    with pytest.raises(StepTimeoutError, match="timeout"):
        engine.run(dawdling)
    assert balances(database_url) == {}
    eventually(lambda: not rows(database_url, SLEEPING))


@transaction
def does_wrong(connection: psycopg.Connection, what: str) -> None:
    """Does what a transaction may not do."""
    connection.execute("UPDATE account SET balance = 0 WHERE id = 0")
    WRONG[what](connection)
    connection.execute("UPDATE account SET balance = 0 WHERE id = 1")


@step
def any_step() -> None:
    """A step."""


@workflow
def any_workflow() -> None:
    """A workflow."""


def fails_and_goes_on(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error):
        connection.execute("SELECT 1 / 0")


def begins_anew(connection: psycopg.Connection) -> None:
    connection.execute("COMMIT")
    connection.execute("BEGIN")


WRONG: dict[str, Callable[[psycopg.Connection], Any]] = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "step": lambda _: any_step(),
    "child": lambda _: any_workflow.start(),
    "called child": lambda _: any_workflow(),
    "send": lambda _: asyncio.run(send_async("w", 1)),
    "recv": lambda _: asyncio.run(recv_async()),
    "sleep": lambda _: sleep(0.0),
    "COMMIT": lambda connection: connection.execute("COMMIT"),
    "COMMIT and BEGIN": begins_anew,
    "ROLLBACK": lambda connection: connection.execute("ROLLBACK"),
}


@workflow
def goes_wrong(what: str) -> None:
    does_wrong(what)


@pytest.mark.parametrize("what", WRONG)
def test_what_a_transaction_may_not_do_is_an_error_that_says_what_to_do(
    engine: Engine, database_url: str, what: str
) -> None:
    """The engine ends the transaction, and nobody else: also where the function did it behind psycopg's back."""
    with pytest.raises(TransactionError, match=r"savepoint|before or after|Leave the end to the engine"):
        engine.run(goes_wrong.options(workflow_id="w"), what)
    if what not in {"COMMIT", "COMMIT and BEGIN"}:
        assert 0 not in balances(database_url)
    if what not in {"COMMIT", "ROLLBACK"}:  # behind these, Postgres is in autocommit
        assert 1 not in balances(database_url)
    ((kind, failed),) = rows(database_url, "SELECT kind, error IS NOT NULL FROM dbosflow.step WHERE workflow_id = 'w'")
    assert (kind, failed) == ("transaction", True)


def test_a_failed_statement_that_is_passed_over_is_an_error(engine: Engine, database_url: str) -> None:
    """A savepoint around it is not."""

    @transaction
    def passes_over(connection: psycopg.Connection, savepoint: bool) -> None:  # noqa: FBT001
        connection.execute("UPDATE account SET balance = 1 WHERE id = 0")
        around = connection.transaction() if savepoint else nullcontext()
        with suppress(psycopg.errors.DivisionByZero), around:
            connection.execute("SELECT 1 / 0")

    @workflow(name="passing_over")
    def passing_over(savepoint: bool) -> None:  # noqa: FBT001
        passes_over(savepoint)

    with pytest.raises(TransactionError, match="savepoint"):
        engine.run(passing_over, False)
    assert balances(database_url) == {}
    for _ in range(3):  # also where psycopg has deallocated what was prepared
        engine.run(passing_over, True)
    assert balances(database_url) == {0: 1}


def test_a_stream_is_settled_with_the_rows(engine: Engine, database_url: str) -> None:
    """Nothing of it is seen before, and what follows the close is refused."""

    @transaction
    async def settles(connection: psycopg.AsyncConnection, good: bool) -> None:  # noqa: FBT001
        await connection.execute("UPDATE account SET balance = 1 WHERE id = 0")
        await write_stream_async("out", "last")
        await close_stream_async("out")
        with pytest.raises(StreamClosedError):
            await write_stream_async("out", "too late")
        assert rows(database_url, "SELECT 1 FROM dbosflow.stream_value WHERE value::text = '\"last\"'") == []
        if not good:
            msg = "no"
            raise ValueError(msg)

    @workflow(name="settling")
    async def settling() -> None:
        await write_stream_async("out", "first")
        with pytest.raises(ValueError, match="no"):
            await settles(good=False)
        await write_stream_async("out", "second")  # its close was taken back
        await settles(good=True)
        with pytest.raises(StreamClosedError):
            await write_stream_async("out", "too late")

    engine.run(settling.options(workflow_id="w"))
    assert engine.read_stream("w", "out").read_all() == (["first", "second", "last"], True)
    assert disorder(database_url) == []


def test_values_in_a_transaction_have_a_bound_of_their_own(database_url: str) -> None:
    """They wait for the commit: a write above the bound fails at once, and waits for nothing."""

    @transaction
    def floods(_: psycopg.Connection) -> None:
        for number in range(100):
            write_stream("out", f"{number:1000}")

    @workflow(name="flooding")
    def flooding() -> None:
        floods()

    with Engine(database_url, buffer_bytes=20_000) as engine:
        with pytest.raises(StreamBackPressureError, match="buffer_bytes"):
            engine.run(flooding.options(workflow_id="w"))
        assert engine.read_stream("w", "out").read_all()[0] == []


def test_branches_that_write_to_one_stream_in_transactions_all_get_through(engine: Engine, database_url: str) -> None:
    """At each level of isolation: the run's own rows say where the stream ends, and no snapshot does."""

    @transaction(isolation="repeatable read")
    async def adds(connection: psycopg.AsyncConnection, number: int) -> None:
        await connection.execute("SELECT balance FROM account WHERE id = 0")
        await write_stream_async("out", number)

    @workflow(name="adding")
    async def adding() -> None:
        async def branch(number: int) -> None:
            for count in range(5):
                await write_stream_async("out", -number)
                await adds(number * 10 + count)

        await asyncio.gather(*map(branch, range(1, 6)))

    engine.run(adding.options(workflow_id="w"))
    values = engine.read_stream("w", "out").read_all()[0]
    assert sorted(value for value in values if value > 0) == sorted(n * 10 + c for n in range(1, 6) for c in range(5))
    assert len(values) == 50
    assert disorder(database_url) == []


async def until_somebody_waits(connection: psycopg.AsyncConnection) -> None:
    """Until another transaction waits for a lock."""
    query: LiteralString = """
        SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    async with asyncio.timeout(PATIENCE):
        while await (await connection.execute(query)).fetchone() is None:
            await connection.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.005)")


def test_a_close_is_taken_back_when_the_commit_fails(engine: Engine) -> None:
    """The function was over, and the stream closed for others by then."""

    @transaction
    async def settles_too_early(connection: psycopg.AsyncConnection) -> None:
        await close_stream_async("out")
        await connection.execute("COMMIT")
        await connection.execute("BEGIN")

    @workflow(name="settling_too_early")
    async def settling_too_early() -> None:
        with pytest.raises(TransactionError):
            await settles_too_early()
        await write_stream_async("out", "still open")

    engine.run(settling_too_early.options(workflow_id="w"))
    assert engine.read_stream("w", "out").read_all() == (["still open"], True)


def test_a_deferred_constraint_that_waits_holds_up_no_other_transaction_of_the_run(
    engine: Engine, database_url: str
) -> None:
    """It waits for a row of the run's other transaction, which waits for its turn. Each function runs once."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE child (id int REFERENCES account DEFERRABLE INITIALLY DEFERRED)")
    held, inserted = asyncio.Event(), asyncio.Event()

    @transaction
    async def holds(connection: psycopg.AsyncConnection, target: int) -> str | None:
        await connection.execute("SELECT 1 FROM account WHERE id = 1 FOR UPDATE")
        held.set()
        await inserted.wait()
        if target == 1:
            await until_somebody_waits(connection)
        return current().attempt

    @transaction
    async def refers(connection: psycopg.AsyncConnection, target: int) -> str | None:
        await held.wait()
        await connection.execute("INSERT INTO child VALUES (%s)", (target,))
        inserted.set()
        return current().attempt

    @workflow(name="referring")
    async def referring(target: int) -> list[str | None]:
        return list(await asyncio.gather(holds(target), refers(target)))

    assert engine.start(referring, 1).result(timeout=60) == ["1.1", "1.1"]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        engine.run(referring, 99)


@pytest.mark.parametrize("error", ["division_by_zero", "unique_violation", "lock_not_available"])
def test_the_error_of_a_deferred_trigger_is_that_of_the_function(engine: Engine, database_url: str, error: str) -> None:
    """Whatever it is: those of the engine's own last statement mean other things."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{error}'; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON transfer DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuses()"
        )

    @transaction
    async def refused(connection: psycopg.AsyncConnection) -> None:
        await connection.execute("INSERT INTO transfer VALUES ('one')")

    @workflow(name="refused_by_trigger")
    async def refused_by_trigger() -> None:
        await refused()

    name = "".join(word.capitalize() for word in error.split("_"))
    with pytest.raises(getattr(psycopg.errors, name)):
        engine.run(refused_by_trigger.options(workflow_id="w"))
    assert [one.attempt for one in engine.list_steps("w")] == ["1.1"]
    assert rows(database_url, "SELECT * FROM transfer") == []


def test_outside_of_workflows_the_caller_passes_the_connection(database_url: str) -> None:
    """Then it is a plain function, and a part of the caller's transaction; so is one that another one calls."""
    with psycopg.connect(database_url) as connection:
        assert called_plainly(connection, 1) == 99
        connection.rollback()
    assert balances(database_url) == {}
    with pytest.raises(DefinitionError, match="pass one"):
        called_plainly(1)


def test_in_a_workflow_the_caller_passes_none(engine: Engine, database_url: str) -> None:
    with pytest.raises(DefinitionError, match="leave the first"):
        engine.run(passes_one, database_url)


@transaction
def called_plainly(connection: psycopg.Connection, amount: int) -> int:
    cursor = connection.execute("UPDATE account SET balance = balance - %s WHERE id = 0 RETURNING balance", (amount,))
    (left,) = cursor.fetchone() or (0,)
    return int(left)


@transaction
def calls_another(connection: psycopg.Connection) -> int:
    return called_plainly(connection, 1) + called_plainly(connection, 1)


@workflow
def composed() -> int:
    return calls_another()


@workflow
def passes_one(url: str) -> int:
    with psycopg.connect(url) as connection:
        return called_plainly(connection, 1)


def test_a_transaction_may_be_part_of_another_one(engine: Engine, database_url: str) -> None:
    """It gets the connection of the other one, and they are one step."""
    assert engine.run(composed.options(workflow_id="w")) == 197
    assert [one.key for one in engine.list_steps("w")] == ["calls_another#0"]
    assert balances(database_url) == {0: 98}


async def wrong_colour(connection: psycopg.Connection) -> None:
    """An async function with a sync connection."""


def no_connection(number: int) -> None:
    """A function without a connection."""


def nothing() -> None:
    """A function without a parameter."""


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "colour": (wrong_colour, {}, r"psycopg\.AsyncConnection"),
    "no connection": (no_connection, {}, "first parameter"),
    "no parameter": (nothing, {}, "first parameter"),
    "isolation": (called_plainly.definition.function, {"isolation": "snapshot"}, "isolation"),
    "conflicts": (called_plainly.definition.function, {"max_conflicts": -1}, "max_conflicts"),
    "read only": (called_plainly.definition.function, {"read_only": "yes"}, "read_only"),
    "timeout": (called_plainly.definition.function, {"timeout": -1}, "timeout"),
    "attempts": (called_plainly.definition.function, {"max_attempts": 0}, "max_attempts"),
    "unknown": (called_plainly.definition.function, {"retries": 3}, "no option 'retries'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_a_transaction_is_refused_where_it_is_defined(what: str) -> None:
    function, options, message = REFUSED[what]
    with pytest.raises((DefinitionError, ConfigurationError), match=message):
        transaction(**options)(function)


def test_long_transactions_take_no_connection_from_others(database_url: str) -> None:
    """They have a pool of their own: with all of it taken, the engine reads, cancels and runs steps as ever."""
    entered, leave = threading.Semaphore(0), threading.Event()

    @transaction
    def stays(connection: psycopg.Connection) -> None:
        connection.execute("SELECT 1")
        entered.release()
        leave.wait(60)

    @workflow(name="staying")
    def staying() -> None:
        stays()

    with Engine(database_url, transaction_pool_size=2, pool_size=1) as engine:
        handles = [engine.start(staying) for _ in range(3)]
        assert entered.acquire(timeout=60)
        assert entered.acquire(timeout=60)
        assert not entered.acquire(blocking=False)
        assert engine.start(any_workflow).result(timeout=60) is None
        assert engine.workflows.count() == 4
        leave.set()
        for handle in handles:
            handle.result(timeout=60)


def test_a_cancelled_transaction_is_rolled_back(engine: Engine, database_url: str) -> None:
    """Of both colours, and the locks are free soon."""
    entered = threading.Event()

    @transaction
    def stuck_on_thread(connection: psycopg.Connection) -> None:
        connection.execute("UPDATE account SET balance = 0 WHERE id = 0")
        entered.set()
        connection.execute("SELECT pg_sleep(60)")

    @workflow(name="stuck")
    async def stuck() -> None:
        await stuck_on_thread.run_async()

    handle = engine.start(stuck)
    assert entered.wait(60)
    handle.cancel()
    eventually(lambda: handle.status().ended)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = '10s'")
        connection.execute("UPDATE account SET balance = 5 WHERE id = 0")
    assert balances(database_url) == {0: 5}


def test_a_close_in_sync_code(engine: Engine) -> None:
    @transaction
    def closes(_: psycopg.Connection) -> None:
        write_stream("k", 1)
        close_stream("k")

    @workflow(name="closing_in_transaction")
    def closing() -> None:
        closes()

    engine.run(closing.options(workflow_id="w"))
    assert engine.read_stream("w", "k").read_all() == ([1], True)

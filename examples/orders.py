"""A shop whose orders, stock and workflows never disagree: what belongs together is in one commit.

```text
python -m examples.orders chair 3
```

The order's row and its workflow are there together, or neither is (`start_in`). Taking from the stock is a transaction
of the workflow: the row has changed and the record says so, or neither. The charge is a step: another system may
be asked again, under a key that is the same each time. Kill it wherever you like.
"""

import sys

import psycopg

from dbosflow import Engine, compensate, current, step, transaction, workflow, write_stream

MOST = 5
"""What a card pays for."""

TABLES = """
CREATE TABLE IF NOT EXISTS stock (article text PRIMARY KEY, count integer NOT NULL CHECK (count >= 0));
CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, article text, count integer, status text DEFAULT 'new');
INSERT INTO stock VALUES ('chair', 10), ('table', 2) ON CONFLICT DO NOTHING;
"""


@transaction
def take(connection: psycopg.Connection, article: str, count: int) -> None:
    """Takes from the stock; a negative number puts it back."""
    connection.execute("UPDATE stock SET count = count - %s WHERE article = %s", (count, article))


@step(max_attempts=5, interval=0.5, retry_on=ConnectionError)
def charge(order: int, count: int) -> None:
    if count > MOST:
        msg = "the card is refused"
        raise ValueError(msg)
    print(f"charged for order {order}, under the key {current().workflow_id}")  # a call to a payment service


@transaction
def settle(connection: psycopg.Connection, order: int, status: str) -> None:
    """The order's status, and the last word of the stream that the customer's page reads."""
    connection.execute("UPDATE orders SET status = %s WHERE id = %s", (status, order))
    write_stream("status", status)


@workflow(compensates=True)
def fulfil(order: int, article: str, count: int) -> None:
    compensate(settle, order, "given up")
    take(article, count)
    compensate(take, article, -count)
    charge(order, count)
    settle(order, "paid")


def main() -> None:
    """Orders, waits for the outcome, and shows the tables."""
    article, count = sys.argv[1], int(sys.argv[2])
    with Engine() as engine, psycopg.connect(engine.database_url) as connection:
        connection.execute(TABLES)
        row = connection.execute(
            "INSERT INTO orders (article, count) VALUES (%s, %s) RETURNING id", (article, count)
        ).fetchone()
        assert row
        handle = engine.start_in(connection, fulfil.options(workflow_id=f"order-{row[0]}"), row[0], article, count)
        connection.commit()  # the order and its workflow
        try:
            handle.result()
        except (ValueError, psycopg.errors.CheckViolation) as error:
            print(f"order {row[0]} failed: {type(error).__name__}")
        print("order:", connection.execute("SELECT status FROM orders WHERE id = %s", (row[0],)).fetchone())
        print("stock:", connection.execute("SELECT article, count FROM stock ORDER BY article").fetchall())


if __name__ == "__main__":
    main()

"""The tables of the limit: a workflow, its records, its values."""

from __future__ import annotations

import psycopg

_TABLES = """
CREATE TABLE workflow (id text PRIMARY KEY, input json NOT NULL, output json, ended_at timestamptz);
CREATE TABLE record (workflow_id text, key text, output json NOT NULL, PRIMARY KEY (workflow_id, key));
CREATE TABLE value (workflow_id text, number bigint, value json NOT NULL, PRIMARY KEY (workflow_id, number));
"""


def prepare(url: str) -> None:
    """Makes them."""
    with psycopg.connect(url) as connection:
        connection.execute(_TABLES)

"""All the SQL, and the connections that carry it. Nothing here uses asyncio, except to wait on a connection.

From the lowest to the highest:

```text
urls         database URLs in the forms that people use
setup        the settings of a new session
attempts     retries of a connection, and their errors in words
connect      opens connections
connection   a psycopg connection whose waits cost one callback
thread_connection   one for a thread, whose statements have a limit
arrays wire  arrays in Postgres's binary format; hot statements over libpq itself
statements   loads the named statements of sql/<table>.sql
payloads     applies the codecs to payloads in values and results
queries      runs a statement, and gives its errors names
start_options cancel_request    the columns of a start that most starts leave empty
carried      what an iteration of a workflow hands to the next one
workflow step stream worker attribute dedup schedule used_units waiter    one module per table
queue outbox standalone    the tables of limits, of what users' transactions ask for, and of streams without a workflow
message waiting priority version iteration listing explain    more questions about the tables of workflows
fork transfer reencryption    whole workflows: copied, exported and imported, written under another key
user_connection transaction    connections for users' transactions, and what the engine sends around their statements
batch_rows batch    the rows of the journal's statement; its forms, composed of the parts in sql/batch.sql
notify       NOTIFY and LISTEN
retention    removes old data
doctor       the queries of `dbosflow doctor`
migrate      migrates a schema to this code's version
databases    copies of databases, for tests
sql/         the statements; schema.sql is the whole schema in one file
```
"""

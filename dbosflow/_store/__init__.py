"""All the SQL, and the connections that it goes over. Nothing here knows asyncio, but for the waits of a connection.

From the lowest to the highest:

```text
urls         database URLs as people have them
setup        what a new session is set to
connect      opens connections, and says in words why one cannot be had
connection   a connection of psycopg's whose waits cost a callback
arrays wire  arrays in Postgres's binary format; hot statements over libpq itself
statements   loads the named statements of sql/<table>.sql
queries      runs one of them, and gives its errors names
workflow step stream worker batch    a module a table, and one for the journal's statement
notify       NOTIFY and LISTEN
retention    what takes old data away
doctor       what the command of that name asks
migrate      brings a schema to this code
databases    copies of databases, for tests
sql/         the statements; schema.sql is the whole schema in one file
```
"""

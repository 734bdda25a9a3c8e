"""What stands in the column of a record or of a stream's block as a word or a name that has parts.

```text
kinds        which kinds of record there are, and what each one tells a replay
keys         how records, branches and children are named, and what their names say
producers    how those are named who write to streams
```

Above it everybody reads and writes these names with its functions: the store, whose SQL cuts some of them as well
(``stream_block`` in ``schema.sql`` says where), the runtime, the tests of users.
"""

"""The words and structured names that are stored in the columns of records and of stream blocks.

```text
kinds        the kinds of record, and what each one means for a replay
keys         how records, branches and children are named, and how their names are read
producers    how the producers of stream values are named
spaces       the keys of the streams that the engine itself keeps: messages, events, replies, answers to tokens
```

All code above reads and writes these names with the functions of this package: the store, whose SQL cuts some of them
as well (``stream_block`` in ``schema.sql`` says where), the runtime, and the tests of users.
"""

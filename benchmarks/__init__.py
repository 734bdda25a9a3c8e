"""What dbosflow costs, next to the peer that a user would pick and to the limit of what Postgres can do.

```text
__main__    the command: python -m benchmarks
table       the rows of the table, their targets, how much work each contender gets
rounds      every contender in turn, round by round, each measurement in a process of its own
report      the tables, JSON and the verdicts                chart    the main one as a picture
growth      the cost of one operation as tables grow: python -m benchmarks.growth
measure     the process of one measurement
ours        dbosflow     peer    DBOS Transact     limit    psycopg alone     absurd    Absurd
tasks       Procrastinate     pgqueuer    PgQueuer     oban    Oban
ours_asyncio    dbosflow on asyncio's own loop, where that matters; ours is on uvloop
server      a Postgres, and a database for each measurement
meter       seconds, WAL, commits and CPU of a piece of work
halves      a measurement of two processes
at_once     how many of a queue run at a moment in two workers
```
"""

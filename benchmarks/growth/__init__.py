"""What one operation costs while what lies around it grows: it should be the same.

```text
__main__      the command: python -m benchmarks.growth
dimensions    what grows, how far, and which operations are watched
fill          a database with so much in it, straight into the tables
operations    the operations, each timed a fixed number of times
```
"""

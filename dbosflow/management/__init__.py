"""Management of workflows from outside: ``engine.workflows``.

``listings`` reads, ``acts`` changes many at a time, ``cursors`` encodes the places between pages.
"""

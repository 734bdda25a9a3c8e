"""The embedded server: a Postgres in a directory, for development and tests.

All processes that name the directory share one server. The first one starts it, it stops after the last one has left,
and its data is kept for the next time. Only the *binaries* come from elsewhere (a package, or the system).

```text
server         joining and leaving: the interface for the rest of dbosflow
startup        from a place to a server that answers
keeper         the process that owns Postgres; a stand-alone script without imports from dbosflow
cluster        the command lines, settings, access rules and state file of Postgres
binaries       which Postgres to run, out of the   installations   that exist
relocation     a copy of an installation where the server's account can reach it
place          the files and directories of a server, made by      directories     with the right permissions
sockets        a directory for the socket
account        the account that the server runs as
locks          locks that end with their process   deadline        waiting with a limit
```
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from dbosflow._embedded.windows import EmbeddedServer
else:
    from dbosflow._embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer"]

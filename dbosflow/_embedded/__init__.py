"""The embedded server: a Postgres in a directory, for whoever has none.

Every process that names the directory shares one server. It is started by the first, stopped after the last, and what
it holds is kept for the next time. Only the *binaries* come from elsewhere (a package, or the system).

```text
server         joining and leaving: what the rest of dbosflow calls
startup        from a place to a server that answers
keeper         the process that owns Postgres; it stands alone and imports nothing of ours
cluster        the command lines, settings, access rules and state file of Postgres
binaries       which Postgres to run, out of the   installations   that are there
relocation     a copy of it where the server's account can reach it
place          which directory holds what, in      directories     that are as open as they should be
sockets        a directory for the socket
account        whom the server runs as
locks          locks that end with their process   deadline        waiting, within limits
```
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from dbosflow._embedded.windows import EmbeddedServer
else:
    from dbosflow._embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer"]

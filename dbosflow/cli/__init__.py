"""The command line: ``dbosflow``, or ``python -m dbosflow``.

```text
entry       the parser, and what becomes of errors and signals
worker  migrate  workflow  stream  health  doctor/  demo/      one command each
supervisor  keeps worker processes running    program     this program as a process to be started
options     what several commands take        database    which database a command works on
console     what people read                  signals     SIGTERM as orderly as Ctrl-C
```

Results go to stdout, logs and complaints to stderr. Exit status: 0; 1 when it did not work; 2 for a wrong command line;
130 after Ctrl-C.
"""

from dbosflow.cli.entry import main

__all__ = ["main"]

"""The command line: ``dbosflow``, or ``python -m dbosflow``.

```text
entry       the parser, and the handling of errors and signals
worker  migrate  workflow  stream  health  doctor/  demo/      one command each
supervisor  keeps worker processes running    program     starts another dbosflow process
options     options of several commands       database    which database a command works on
console     output for people and programs    signals     SIGTERM as orderly as Ctrl-C
```

Results go to stdout, logs and error messages to stderr. The exit status is 0 on success, 1 on failure, 2 for a wrong
command line, and 130 after Ctrl-C.
"""

from dbosflow.cli.entry import main

__all__ = ["main"]

"""``python -m dbosflow``: the command line."""

import sys

from dbosflow.cli import main

if __name__ == "__main__":
    sys.exit(main())

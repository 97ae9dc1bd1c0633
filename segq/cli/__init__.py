"""The command `segq`. One file per verb; `program` knows their names and imports only the one that is asked for."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the console script and of `python -m segq`."""
    from segq.cli import ending, exits  # small; what takes time to import comes when Ctrl-C is understood already

    try:
        ending.prepare()
        from segq.cli.program import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    sys.exit(code)

"""The `fastnet` command: one module a command, and this front door.

`fastnet --version` must answer before click is imported (docs/numbers.md, row "start-up"), so it is answered here.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] == ["--version"]:
        from fastnet import __version__

        print(f"fastnet {__version__}")
        return
    try:
        from fastnet.cli.main import run

        code = run()
        gc.freeze()  # all that is left goes with the process: a last look for cycles takes 10,000 files' time (30 ms)
        sys.exit(code)
    except KeyboardInterrupt:  # while modules were still being imported
        sys.exit(130)

"""The `fastnet` command: entry point; one module a command.

`fastnet --version` must answer before click is imported (docs/benchmarks.md, row "start-up"), so it
is answered here.
"""

from __future__ import annotations

import contextlib
import gc
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # closed, as by `<&-`: a socket would get its number
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from fastnet.apps.connect.stdio import occupy_standard_descriptors

        occupy_standard_descriptors()
    if sys.argv[1:] == ["--version"]:
        from fastnet._version import __version__

        # a full disk or a closed pipe is reported as for every command, below
        with contextlib.suppress(OSError):
            print(f"fastnet {__version__}", flush=True)
            return
    try:
        from fastnet.cli.main import run

        code = run()
        # memory is freed with the process: a last garbage collection would take 30 ms, the time
        # of 10,000 small files
        gc.freeze()
        sys.exit(code)
    except KeyboardInterrupt:  # while modules were still being imported
        sys.exit(130)

"""A server in a process of its own, ruled through its standard input.

`python -m tests.support.server_process '{"engine": ...}'`.

Prints its endpoint. Each line of input is answered with one line of JSON: statistics, descriptors,
anonymous memory. At the end of input it closes the server and prints the same once more.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import fastnet
from fastnet.server.server import Server


def state(server: Server) -> dict[str, Any]:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return server.statistics().as_dict() | {
        "anonymous_bytes": int(found[1]) * 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def main() -> None:
    options = json.loads(sys.argv[1])
    soft = options.pop("descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    if options.pop("sigpipe_kills", False):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with fastnet.serve(**options) as server:
        print(server.endpoint, flush=True)
        for _ in sys.stdin:
            gc.collect()
            print(json.dumps(state(server)), flush=True)
    print(json.dumps(state(server)), flush=True)


if __name__ == "__main__":
    main()

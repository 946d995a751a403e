"""An echo of datagrams by a Python function, to compare with uvloop's protocol.

python -m bench.handler_echo BACKEND RCVBUF_BYTES
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import fastnet


def echo(data: memoryview, peer: Any) -> memoryview:
    return data


def main() -> None:
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    backend, rcvbuf = sys.argv[1:]
    with fastnet.serve(echo, "udp://127.0.0.1:0", backend=backend, rcvbuf=int(rcvbuf)) as server:
        print(f"listening on {server.endpoint}", flush=True)
        signal.sigwait(stops)


if __name__ == "__main__":
    main()

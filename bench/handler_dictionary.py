"""The dictionary as a Python function with a dict, on fastnet's native loop.

What its native service is to be compared with.

python -m bench.handler_dictionary FILE RCVBUF_BYTES
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import fastnet
from fastnet.service._dictionary_file import load
from fastnet.service.dictionary_py import UNKNOWN, word_of


def main() -> None:
    file, rcvbuf = sys.argv[1:]
    entries = load(file).entries

    def translate(data: memoryview, peer: Any) -> bytes:
        return entries.get(word_of(bytes(data)), UNKNOWN)

    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    with fastnet.serve(translate, "udp://127.0.0.1:0", rcvbuf=int(rcvbuf)) as server:
        print(f"listening on {server.endpoint}", flush=True)
        signal.sigwait(stops)


if __name__ == "__main__":
    main()

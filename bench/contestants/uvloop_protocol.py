"""asyncio_protocol.py on uvloop, the fastest loop asyncio has.

Usage: uvloop_protocol.py READ_BYTES.
"""

import uvloop
from asyncio_protocol import main

if __name__ == "__main__":
    uvloop.run(main())

"""An echo server with asyncio's fastest interface. Prints one line when it is ready.

Fact. For a plain Protocol, asyncio allocates 256 KiB for every read, and glibc answers with mmap,
mremap and munmap each time (strace -c), which costs more than the echo. A BufferedProtocol reads
into memory of its own; here that is one buffer for all connections. Usage: asyncio_protocol.py
READ_BYTES.
"""

import asyncio
import sys

READ_BYTES = int(sys.argv[1])


class Echo(asyncio.BufferedProtocol):
    buffer = memoryview(bytearray(READ_BYTES))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def get_buffer(self, size_hint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.transport.write(bytes(self.buffer[:size]))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print(f"listening on tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

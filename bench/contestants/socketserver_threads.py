"""An echo server as one writes it with the standard library's socketserver.

A thread a connection.

Usage: socketserver_threads.py READ_BYTES. Prints one line when it is ready.
"""

import socket
import socketserver
import sys

READ_BYTES = int(sys.argv[1])


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := self.request.recv(READ_BYTES):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 4096


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Echo) as server:
        print(f"listening on tcp://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()

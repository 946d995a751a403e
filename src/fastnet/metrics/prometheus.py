"""Prometheus exporter: counters in the text format over HTTP.

Facts. Any client that reaches the port can send garbage, or one byte a second without end. A thread
of this process can read the counters at any time, because the loops only write them
(metrics/counters.py). The format:
https://prometheus.io/docs/instrumenting/exposition_formats/
Decision: the standard library's HTTP server in a thread of its own, at most METRICS_CONNECTIONS_MAX
connections, each closed after METRICS_DEADLINE_S in any state. A client's fault is at most a line
at level debug. The listener is opened before the servers start, so that a port in use is an error
of the start, and its thread after them, so that pure-Python workers are forked from a process
without it.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any

from fastnet._version import __version__
from fastnet.endpoint import Endpoint
from fastnet.limits import ACCEPT_PAUSE_S, METRICS_CONNECTIONS_MAX, METRICS_DEADLINE_S
from fastnet.transport import tcp
from fastnet.transport.accept_errors import ACCEPT_CAPACITY_ERRNOS
from fastnet.transport.contract import SocketOptions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Source = tuple[dict[str, str], Callable[[], Any]]
"""The labels of a server, and the function that returns its statistics."""

Family = tuple[str, str, str, Callable[[Any], Any]]
"""Name, type and help text of a metric, and its value in the statistics of a source."""

FAMILIES: tuple[Family, ...] = (
    ("accepted_total", "counter", "Connections accepted.", lambda s: s.accepted),
    ("closed_total", "counter", "Connections ended, by reason.", lambda s: s.closed),
    ("open_connections", "gauge", "Connections being served now.", lambda s: s.open),
    ("bytes_in_total", "counter", "Payload bytes received.", lambda s: s.bytes_in),
    ("bytes_out_total", "counter", "Payload bytes sent.", lambda s: s.bytes_out),
    (
        "messages_total",
        "counter",
        "Reads that returned data, or datagrams received.",
        lambda s: s.messages,
    ),
    (
        "write_buffer_bytes",
        "gauge",
        "Bytes buffered for slow readers now.",
        lambda s: s.write_buffer_bytes,
    ),
    ("replies_total", "counter", "Datagrams sent.", lambda s: s.replies),
    (
        "unanswered_total",
        "counter",
        "Datagrams of peers that are not allowed, or of ports that would reply in turn.",
        lambda s: s.unanswered,
    ),
    ("unsent_total", "counter", "Replies that the kernel refused.", lambda s: s.unsent),
    ("truncated_total", "counter", "Datagrams longer than the buffer.", lambda s: s.truncated),
    (
        "kernel_drops_total",
        "counter",
        "Datagrams dropped because the receive buffer was full.",
        lambda s: s.kernel_drops,
    ),
    (
        "amplification_blocked_total",
        "counter",
        "Replies over the limit for an unvalidated address.",
        lambda s: s.amplification_blocked,
    ),
    (
        "handler_errors_total",
        "counter",
        "Calls of a Python handler that failed.",
        lambda s: s.handler_errors,
    ),
    ("accept_pauses_total", "counter", "Accept backoffs.", lambda s: s.accept_pauses),
)

log = logging.getLogger("fastnet.metrics")


def page(sources: Sequence[Source], families: Sequence[Family]) -> str:
    """All metrics of all sources, in the text format."""
    lines = [
        "# HELP fastnet_info The version that runs.",
        "# TYPE fastnet_info gauge",
        f"fastnet_info{labels({'version': __version__})} 1",
    ]
    found = [(own, read()) for own, read in sources]
    for name, kind, about, value in families:
        lines += [f"# HELP fastnet_{name} {about}", f"# TYPE fastnet_{name} {kind}"]
        for own, statistics in found:
            number = value(statistics)
            if isinstance(number, int):
                lines.append(f"fastnet_{name}{labels(own)} {number}")
                continue
            lines += [
                f"fastnet_{name}{labels(own | {'reason': why})} {count}"
                for why, count in number.items()
            ]
    return "\n".join(lines) + "\n"


def labels(values: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{escaped(text)}"' for name, text in values.items()) + "}"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class MetricsRequest(BaseHTTPRequestHandler):
    """One request: HTTP/1.0, the connection ends with the response."""

    server: MetricsServer
    server_version = f"fastnet/{__version__}"
    sys_version = ""
    timeout = METRICS_DEADLINE_S

    def do_GET(self) -> None:
        found = self.path.partition("?")[0] == "/metrics"
        text = (
            page(self.server.sources, self.server.families)
            if found
            else "The counters are at /metrics.\n"
        )
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: " + format, self.address_string(), *args)


class MetricsServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """HTTP server: listens from construction, serves from start to close. Raises NetworkError."""

    daemon_threads = False
    block_on_close = True
    sources: Sequence[Source] = ()
    families: Sequence[Family] = FAMILIES

    def __init__(self, endpoint: Endpoint) -> None:
        listener = tcp.listen(endpoint, SocketOptions())
        super().__init__(("", 0), MetricsRequest, bind_and_activate=False)
        self.socket.close()
        self.socket = listener.sock
        self.endpoint = listener.endpoint
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        """Guards _deadlines: when each connection is closed."""
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{str(self.endpoint).replace('tcp:', 'http:')}/metrics"

    def start(self, sources: Sequence[Source], families: Sequence[Family] = FAMILIES) -> None:
        """Serve in a thread."""
        self.sources, self.families = sources, families
        self._thread = threading.Thread(
            target=self.serve_forever, name="fastnet-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close all connections and end the thread."""
        if self._thread is not None:
            # A listener that is shut down is readable, which wakes the thread immediately.
            self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._thread.join()
        self._close_expired(float("inf"))
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()
        except OSError as error:
            if error.errno in ACCEPT_CAPACITY_ERRNOS:
                time.sleep(ACCEPT_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            room = len(self._deadlines) < METRICS_CONNECTIONS_MAX
            if room:
                self._deadlines[request] = time.monotonic() + METRICS_DEADLINE_S
        if room:
            super().process_request(request, client_address)
        else:
            super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second by serve_forever."""
        super().service_actions()
        self._close_expired(time.monotonic())

    def _close_expired(self, now: float) -> None:
        with self._lock:
            for request in [
                request for request, deadline in self._deadlines.items() if deadline <= now
            ]:
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed already

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client of the metrics failed", exc_info=True)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

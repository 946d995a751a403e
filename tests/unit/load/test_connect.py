"""Connections are opened a bounded number at a time; each refusal is counted."""

from __future__ import annotations

import errno
import resource
import socket
import threading
from pathlib import Path

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError
from fastnet.load.connect import open_connections


def test_more_connections_than_may_be_pending_all_open() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        opened = open_connections(Endpoint("tcp", *listener.getsockname()), 700, 5.0)
        for connection in opened.connections:
            assert not connection.getblocking()
            connection.close()
    assert (len(opened.connections), opened.refused) == (700, 0)


def test_running_out_of_descriptors_refuses_the_rest_and_says_why() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        resource.setrlimit(resource.RLIMIT_NOFILE, (listener.fileno() + 20, before[1]))
        try:
            opened = open_connections(Endpoint("tcp", *listener.getsockname()), 50, 5.0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for connection in opened.connections:
            connection.close()
    assert len(opened.connections) + opened.refused == 50
    assert opened.first_refusal is not None
    assert opened.first_refusal.errno == errno.EMFILE


def test_a_full_unix_backlog_is_tried_again(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        accepting = threading.Thread(
            target=lambda: [listener.accept()[0].close() for _ in range(20)]
        )
        accepting.start()
        opened = open_connections(Endpoint("unix", path=path), 20, 5.0)
        accepting.join(5.0)
    for connection in opened.connections:
        connection.close()
    assert (len(opened.connections), opened.refused) == (20, 0)


def test_a_unix_backlog_that_stays_full_is_refused_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        opened = open_connections(Endpoint("unix", path=path), 3, 0.05)
    for connection in opened.connections:
        connection.close()
    assert opened.refused > 0
    assert opened.first_refusal is not None
    assert opened.first_refusal.errno == errno.EAGAIN


@pytest.mark.parametrize("host", ["localhost", ""])
def test_the_address_that_answers_is_found_among_several(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = open_connections(Endpoint("tcp", host, listener.getsockname()[1]), 3, 5.0)
        for connection in opened.connections:
            assert connection.family == socket.AF_INET
            connection.close()
    assert len(opened.connections) == 3


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(NetworkError, match="no host is called"):
        open_connections(Endpoint("tcp", "no such host", 1), 1, 5.0)

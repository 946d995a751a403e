"""Socket files of both kinds (transport/contract.py, T2 and T4).

Which server may replace which file, and which one wins if several bind the same path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError
from fastnet.transport import TRANSPORTS, unix
from fastnet.transport.contract import Listener, SocketOptions
from tests.conftest import Serve
from tests.contract.test_unixgram import Client
from tests.support.clients import DEADLINE_S


@pytest.mark.parametrize(
    "dead", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["stream", "datagram"]
)
@pytest.mark.parametrize("transport", ["unix", "unixgram"])
def test_a_stale_socket_file_of_either_kind_is_replaced(
    serve: Serve, tmp_path, dead, transport
) -> None:
    """T2."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, dead) as gone:
        gone.bind(str(path))
    server = serve("echo", f"{transport}:{path}")
    assert str(server.endpoint) == f"{transport}:{path}"
    server.close()
    assert not path.exists()


@pytest.mark.parametrize("live", ["unix", "unixgram"])
@pytest.mark.parametrize("transport", ["unix", "unixgram"])
def test_a_live_socket_of_either_kind_is_refused_and_stays_live(
    serve: Serve, tmp_path, live, transport
) -> None:
    """T2, T4."""
    path = tmp_path / "s"
    server = serve("echo", f"{live}:{path}")
    with pytest.raises(NetworkError, match="in use"):
        serve("echo", f"{transport}:{path}")
    assert path.exists()
    if live == "unixgram":
        with Client(server) as client:
            assert client.ask(b"here") == b"here"


def test_a_file_that_is_no_socket_is_left_alone(serve: Serve, tmp_path) -> None:
    """T2."""
    (tmp_path / "s").write_text("precious")
    with pytest.raises(NetworkError, match="not a socket"):
        serve("echo", f"unixgram:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize("before", ["nothing", "stale"])
@pytest.mark.parametrize("transport", ["unix", "unixgram"])
def test_one_of_several_servers_that_bind_one_path_concurrently_gets_it(
    tmp_path, transport, before
) -> None:
    """T2. Also between bind and listen, when a stream socket looks like a stale file."""
    module, many = TRANSPORTS.load(transport, "python"), 8
    for attempt in range(25):
        place = Endpoint(transport, path=str(tmp_path / str(attempt)))
        if before == "stale":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
                dead.bind(place.path)
        barrier = threading.Barrier(many)

        def start(
            number: int, place: Endpoint = place, barrier: threading.Barrier = barrier
        ) -> Listener | int | None:
            barrier.wait(DEADLINE_S)
            try:
                return module.listen(place, SocketOptions())
            except NetworkError as error:
                return error.errno

        with ThreadPoolExecutor(many) as pool:
            found = list(pool.map(start, range(many)))
        winners = [each for each in found if isinstance(each, Listener)]
        try:
            assert len(winners) == 1
            assert found.count(errno.EADDRINUSE) == many - 1
            with socket.socket(socket.AF_UNIX, winners[0].sock.type) as client:
                client.connect(place.path)
        finally:
            for each in winners:
                each.close()


def test_a_locked_folder_is_one_sentence_with_a_hint(tmp_path, monkeypatch) -> None:
    """T2."""
    monkeypatch.setattr(unix, "SOCKET_FILE_TURN_S", 0.01)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(NetworkError, match="Another program keeps that folder locked"):
            unix.listen(Endpoint("unix", path=str(tmp_path / "s")), SocketOptions())
        unix.listen(Endpoint("unix", path=f"@{tmp_path}/s"), SocketOptions()).close()
    finally:
        os.close(folder)
    assert not (tmp_path / "s").exists()

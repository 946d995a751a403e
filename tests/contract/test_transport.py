"""What transport/contract.py promises (T1 to T4), and what servers make of it."""

from __future__ import annotations

import errno
import os
import socket
import stat

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError
from fastnet.transport import TRANSPORTS, tcp, unix
from fastnet.transport.contract import Listener, SocketOptions
from tests.conftest import Dial, Serve
from tests.support.clients import connect

HAS_IPV6 = socket.has_dualstack_ipv6()
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
LOOPBACKS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]


@pytest.fixture
def endpoint(transport, tmp_path) -> Endpoint:
    """A free place to listen."""
    return (
        Endpoint("unix", path=str(tmp_path / "s"))
        if transport == "unix"
        else Endpoint("tcp", "127.0.0.1", 0)
    )


def accepted(listener: Listener) -> tuple[socket.socket, socket.socket]:
    """Both ends of one connection."""
    peer = connect(listener.endpoint)
    listener.sock.setblocking(True)
    return listener.sock.accept()[0], peer.sock


def test_a_listener_listens_never_waits_and_is_not_inherited(transport, endpoint) -> None:
    """T1."""
    module = TRANSPORTS.load(transport, "python")
    with module.listen(endpoint, SocketOptions()) as listener:
        assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not os.get_inheritable(listener.sock.fileno())
        with pytest.raises(BlockingIOError):
            listener.sock.accept()


def options_of(sock: socket.socket, v6: bool) -> dict[str, object]:
    get = sock.getsockopt
    return {
        "nodelay": get(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
        "keepalive": get(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
        "rcvbuf": get(socket.SOL_SOCKET, socket.SO_RCVBUF),
        "sndbuf": get(socket.SOL_SOCKET, socket.SO_SNDBUF),
        "ttl": get(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        if v6
        else get(socket.IPPROTO_IP, socket.IP_TTL),
        "congestion": get(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode(),
    }


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("on", [True, False])
def test_every_option_is_set_and_handed_down_to_connections(host, on) -> None:
    """T1. Linux doubles the buffer sizes it is asked for (socket(7))."""
    options = SocketOptions(
        nodelay=on, keepalive=on, rcvbuf=20_000, sndbuf=30_000, ttl=7, congestion="reno"
    )
    expected = {
        "nodelay": on,
        "keepalive": on,
        "rcvbuf": 40_000,
        "sndbuf": 60_000,
        "ttl": 7,
        "congestion": "reno",
    }
    place = Endpoint("tcp", host, 0)
    with tcp.listen(place, options) as listener:
        ours, theirs = accepted(listener)
        with ours, theirs:
            assert options_of(listener.sock, ":" in host) == expected
            assert options_of(ours, ":" in host) == expected


def test_a_unix_socket_takes_the_buffer_options(tmp_path) -> None:
    """T1."""
    place = Endpoint("unix", path=str(tmp_path / "s"))
    with unix.listen(place, SocketOptions(rcvbuf=20_000, sndbuf=30_000)) as listener:
        assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 60_000


def test_an_option_the_kernel_refuses_is_named() -> None:
    """T1, T2."""
    with pytest.raises(ConfigError, match="--congestion no-such") as caught:
        tcp.listen(Endpoint("tcp", "127.0.0.1", 0), SocketOptions(congestion="no-such"))
    assert "reno" in caught.value.hint


def test_an_address_in_use_is_refused_with_a_hint(transport, endpoint) -> None:
    """T2."""
    module = TRANSPORTS.load(transport, "python")
    with module.listen(endpoint, SocketOptions()) as first:
        name = first.endpoint
        with pytest.raises(NetworkError) as caught:
            module.listen(name, SocketOptions())
        assert (caught.value.errno, caught.value.exit_code) == (errno.EADDRINUSE, 4)
        assert str(name) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tcp://192.0.2.1:0", "cannot assign requested address"),
        ("tcp://no-such-host.invalid:0", "cannot listen on tcp://no-such-host.invalid:0"),
        ("tcp://" + "a" * 70 + ":0", "cannot listen on"),
        ("unix:/no/such/folder/s", "no such file or directory"),
        ("unix:/dev/null/s", "not a directory"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_sentence_with_a_hint(text, why) -> None:
    """T2."""
    place = Endpoint.parse(text)
    with pytest.raises(NetworkError, match=why) as caught:
        TRANSPORTS.load(place.transport, "python").listen(place, SocketOptions())
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("host", LOOPBACKS)
def test_the_name_has_the_port_the_kernel_picked(host) -> None:
    """T3."""
    place = Endpoint("tcp", host, 0)
    with tcp.listen(place, SocketOptions()) as listener:
        name = listener.endpoint
        assert (name.host, name.port) == (host, listener.sock.getsockname()[1])
        assert Endpoint.parse(str(name)) == name


def test_two_servers_on_port_zero_get_two_ports() -> None:
    """T3."""
    place = Endpoint("tcp", "127.0.0.1", 0)
    with tcp.listen(place, SocketOptions()) as one, tcp.listen(place, SocketOptions()) as other:
        assert one.endpoint.port != other.endpoint.port > 0


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("engine", ["epoll", "uring"])
def test_a_port_is_bound_again_while_a_connection_is_in_time_wait(
    engine, serve: Serve, dial: Dial
) -> None:
    """T1. Its connection is still in TIME_WAIT, and nothing else of it holds the port."""
    server = serve("daytime")
    for _ in range(20):
        peer = dial(server)
        assert peer.read_to_end()
        server.close(drain_s=0)
        peer.close()
        server = serve("daytime", str(server.endpoint))
    assert dial(server).read_to_end()


@needs_ipv6
@pytest.mark.parametrize("workers", [1, 3])
def test_no_host_means_both_families_for_every_worker(
    backend, serve: Serve, dial: Dial, workers
) -> None:
    """T1, T3. Each worker accepts connections of either family.

    The kernel spreads them over the workers by a hash.
    """
    server = serve("daytime", "tcp://:0", engine="epoll", workers=workers)
    for listener in server._listeners:
        assert listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    for host in ["127.0.0.1", "::1"] * 10:
        assert dial(server, host=host).read_to_end()


@needs_ipv6
def test_an_ipv6_address_takes_ipv6_only(serve: Serve, dial: Dial) -> None:
    """T1."""
    server = serve("daytime", "tcp://[::1]:0")
    assert str(server.endpoint).startswith("tcp://[::1]:")
    assert dial(server).read_to_end()
    with pytest.raises(ConnectionRefusedError):
        dial(server, host="127.0.0.1")


def test_a_socket_file_is_removed_with_its_server(serve: Serve, dial: Dial, tmp_path) -> None:
    """T4."""
    path = tmp_path / "s"
    server = serve("daytime", f"unix:{path}")
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert dial(server).read_to_end()
    server.close(drain_s=0)
    assert not path.exists()


def test_a_stale_socket_file_is_replaced(serve: Serve, dial: Dial, tmp_path) -> None:
    """T2."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = serve("daytime", f"unix:{path}")
    assert dial(server).read_to_end()


def test_a_live_socket_is_refused_and_still_serves(serve: Serve, dial: Dial, tmp_path) -> None:
    """T2, T4. Not even the failed server's clean-up touches it."""
    server = serve("daytime", f"unix:{tmp_path}/s")
    with pytest.raises(NetworkError, match="in use"):
        serve("echo", f"unix:{tmp_path}/s")
    assert dial(server).read_to_end()


@pytest.mark.parametrize("kind", ["file", "folder", "link to nowhere", "link to a socket"])
def test_what_is_not_a_socket_is_left_alone(serve: Serve, tmp_path, kind) -> None:
    """T2."""
    path, target = tmp_path / "s", tmp_path / "target"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(target))
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target if kind == "link to a socket" else tmp_path / "nowhere")
    before = path.lstat()
    with pytest.raises(NetworkError, match="cannot listen on unix:"):
        serve("echo", f"unix:{path}")
    assert path.lstat() == before
    assert target.exists()


def test_a_file_that_is_no_longer_ours_stays(serve: Serve, tmp_path) -> None:
    """T4. Another process removed the socket file and put another file there."""
    path = tmp_path / "s"
    server = serve("daytime", f"unix:{path}")
    path.rename(tmp_path / "moved")
    path.write_text("not ours")
    server.close()
    assert path.read_text() == "not ours"


def test_an_abstract_name_leaves_no_file_and_is_free_again(serve: Serve, dial: Dial) -> None:
    """T3, T4."""
    name = f"unix:@fastnet-test-{os.getpid()}"
    server = serve("daytime", name)
    assert str(server.endpoint) == name
    assert dial(server).read_to_end()
    with pytest.raises(NetworkError, match="in use"):
        serve("daytime", name)
    server.close(drain_s=0)
    assert dial(serve("daytime", name)).read_to_end()


def test_a_server_that_cannot_start_leaves_nothing_open(
    serve: Serve, tmp_path, monkeypatch
) -> None:
    """T4. `nothing_left` checks the descriptors; the socket file is checked here."""
    from fastnet.server import server

    def no_memory(rows: int) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(server, "CounterTable", no_memory)
    with pytest.raises(OSError):
        serve("echo", f"unix:{tmp_path}/s")
    assert not (tmp_path / "s").exists()

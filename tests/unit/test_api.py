"""fastnet.serve and fastnet.connect: options, errors, and what a type checker finds."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import socket
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from tools import write_serve_options

import fastnet
from fastnet import aio, api
from fastnet.config.fields import option_types, options
from fastnet.config.serve_options import ServeOptions
from fastnet.config.server import ServerConfig
from tests.support.tree import ROOT


def test_serve_options_are_those_of_the_server_configuration() -> None:
    chosen = {each.name for each in options(ServerConfig)} - write_serve_options.GIVEN_BY_ENDPOINT
    types = option_types(ServerConfig)
    assert typing.get_type_hints(ServeOptions) == {name: types[name] for name in chosen}


def test_serve_options_are_written_from_the_server_configuration() -> None:
    written = write_serve_options.TARGET.read_text()
    assert written == write_serve_options.module_text(), "run python -m tools.write_serve_options"


def test_connect_options_have_the_types_of_the_same_serve_options() -> None:
    served = typing.get_type_hints(ServeOptions)
    for name, kind in typing.get_type_hints(api.ConnectOptions).items():
        assert served[name] in (kind, kind | None)


@pytest.mark.parametrize("name", [name for name in fastnet.__all__ if name[0].islower()])
def test_aio_has_the_signature_of_the_blocking_function(name: str) -> None:
    blocking = dict(inspect.signature(getattr(fastnet, name)).parameters)
    awaited = dict(inspect.signature(getattr(aio, name)).parameters)
    blocking.pop("should_stop", None)  # a call of asyncio is cancelled
    assert list(awaited) == list(blocking)
    for each in awaited:
        assert awaited[each].default == blocking[each].default
        assert awaited[each].annotation.replace("api.", "") == blocking[each].annotation


@pytest.mark.parametrize("transport", ["tcp", "udp", "unix"])
def test_connect_reaches_a_server(transport: str, tmp_path: Path) -> None:
    endpoint = f"unix:{tmp_path}/socket" if transport == "unix" else f"{transport}://127.0.0.1:0"
    with fastnet.serve("echo", endpoint) as server:
        with fastnet.connect(server.endpoint, timeout_s=5.0) as sock:
            assert sock.getblocking()
            sock.settimeout(5.0)
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"


def test_connect_sets_the_options_on_the_socket() -> None:
    with fastnet.serve("echo") as server:
        with fastnet.connect(server.endpoint, nodelay=False, keepalive=True, ttl=9) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 9


def test_connect_to_a_closed_port_raises_network_error() -> None:
    with fastnet.serve("echo") as server:
        endpoint = server.endpoint
    with pytest.raises(fastnet.NetworkError, match="cannot connect"):
        fastnet.connect(endpoint, timeout_s=5.0)


def test_an_unknown_option_raises_config_error_with_the_nearest_name() -> None:
    with pytest.raises(fastnet.ConfigError, match="no option 'idle_time'") as raised:
        fastnet.serve("echo", idle_time=60.0)  # type: ignore[call-arg]
    assert raised.value.hint == "Did you mean idle_timeout?"
    with pytest.raises(fastnet.ConfigError, match="no option 'nodelays'"):
        fastnet.connect("tcp://127.0.0.1:9", nodelays=True)  # type: ignore[call-arg]


def test_an_option_of_the_wrong_type_raises_config_error() -> None:
    with pytest.raises(fastnet.ConfigError, match="ttl"):
        fastnet.connect("tcp://127.0.0.1:9", ttl="many")  # type: ignore[arg-type]


def test_an_option_that_the_endpoint_gives_is_refused() -> None:
    with pytest.raises(fastnet.ConfigError, match="port"):
        fastnet.serve("echo", "tcp://127.0.0.1:0", port=1)  # type: ignore[call-arg]


def test_aio_connect_returns_a_socket_for_streams_of_asyncio() -> None:
    async def talk() -> bytes:
        async with aio.serve("echo") as server:
            sock = await aio.connect(server.endpoint, timeout_s=5.0)
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"hello")
            answer = await reader.readexactly(5)
            writer.close()
            await writer.wait_closed()
            return answer

    assert asyncio.run(talk()) == b"hello"


def test_every_field_of_the_option_types_has_a_docstring() -> None:
    for path in ("config/serve_options.py", "api.py"):
        text = (ROOT / "src/fastnet" / path).read_text()
        for body in re.findall(r"TypedDict, total=False\):\n(.*?)(?=\n\n\n|\Z)", text, re.DOTALL):
            fields = re.findall(r"^    \w+: .*\n(.*)", body, re.MULTILINE)
            assert fields
            assert all(line.startswith('    """') for line in fields)
    assert dataclasses.is_dataclass(ServerConfig)


def test_mypy_names_the_wrong_option_in_the_program_of_the_documents(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "library.md").read_text()
    program = re.findall(r"```py\n(.*?)```", document, re.DOTALL)[0]
    answer = re.findall(r"```text\n(.*?)```", document, re.DOTALL)[0]
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    ran = subprocess.run(
        [*command, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=55
    )
    answered = [line for line in ran.stdout.splitlines() if ": note:" not in line]
    assert answered == answer.splitlines()

"""Dictionary service: datagrams native and pure, lines on every pure engine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnet
from fastnet.endpoint import Endpoint
from fastnet.engine.datagram import DATAGRAMS
from fastnet.engine.stream import ENGINES
from fastnet.errors import ConfigError
from fastnet.limits import DICTIONARY_LINE_BYTES_MAX, UNVALIDATED_REPLY_BYTES_MAX
from fastnet.registry import BACKENDS
from fastnet.server.server import Server
from fastnet.service.dictionary_py import ELLIPSIS
from tests.contract.test_datagram import Client, each_way, reaches
from tests.support.clients import DEADLINE_S, connect, settled

WORDS = {
    "cat": "Katze: das Tier",
    "a b": "two words",
    "猫": "ねこ",
    "long": "ä" * 400,
    "unknown": "unbekannt",
    "x" * 1024: "y",
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "words", WORDS)


def write(path: Path, words: dict[str, str]) -> str:
    path.write_text("".join(f"{word}:{translation}\n" for word, translation in words.items()))
    return str(path)


@pytest.fixture
def udp(serve, file) -> Callable[..., Server]:
    return lambda **options: serve("dictionary", "udp://127.0.0.1:0", file=file, **options)


@each_way
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"cat", "Katze: das Tier"),
        (b"cat\0" + bytes(500) + b"dog", "Katze: das Tier"),
        (b"cat\n", "Katze: das Tier\n"),
        (b"cat\r\n", "Katze: das Tier\n"),
        (b"  cat \t", "Katze: das Tier"),
        (b"cat\n\0\0\0", "Katze: das Tier\n"),
        (b"cat\0\n", "Katze: das Tier"),
        (b"a b", "two words"),
        ("猫".encode(), "ねこ"),
        (b"x" * 1024, "y"),
        (b"x" * 1023, "unknown"),
        (b"x" * 5000, "unknown"),
        (b"dog", "unknown"),
        (b"dog\n", "unknown\n"),
        (b"CAT", "unknown"),
        (b"ca", "unknown"),
        (b"", "unknown"),
        (b"\n", "unknown\n"),
        (b"\0cat", "unknown"),
        (b"\xff\xfe\xfd", "unknown"),
        ("猫".encode()[:2], "unknown"),
        (b"unknown\0", "unbekannt"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_a_datagram_is_a_word_and_its_answer_one(engine, backend, udp, question, answer) -> None:
    with Client(udp()) as client:
        assert client.ask(question).decode() == answer


@each_way
def test_its_own_answer_come_back_is_not_answered(engine, backend, udp) -> None:
    """Two servers, or an echo server, would go on for ever."""
    server = udp()
    with Client(server) as client:
        client.send(b"unknown")
        client.send(b"unknown\n")
        assert client.ask(b"cat") == b"Katze: das Tier"
    reaches(server, messages=3, replies=1)


@each_way
def test_an_echo_server_is_no_partner_for_ever(engine, backend, udp, serve) -> None:
    """Really: a forged question in the name of an echo server on an ordinary port."""
    dictionary, other = udp(), serve("echo", "udp://127.0.0.1:0")
    with Client(other) as client, Client(dictionary) as asker:
        echo_port = other.endpoint.port
        reply_to = (dictionary.endpoint.host, dictionary.endpoint.port)
        other.close(drain_s=1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
            echo.bind(("127.0.0.1", echo_port))
            echo.settimeout(10)
            echo.sendto(b"cat", reply_to)
            said = []
            while (text := echo.recv(1000)) and len(said) < 10:
                said.append(text)
                echo.sendto(text, reply_to)
                if text == b"unknown":
                    break
            assert said == [b"Katze: das Tier", b"unknown"]
            assert asker.ask(b"cat") == b"Katze: das Tier"
        client.send(b"closed")
    reaches(dictionary, messages=4, replies=3)


@each_way
def test_a_long_answer_is_cut_between_characters_unless_the_request_is_long(
    engine, backend, udp
) -> None:
    """Never more bytes than came, or 512, to an address that has not proven itself."""
    server = udp()
    with Client(server) as client:
        for question, most in (
            (b"long", UNVALIDATED_REPLY_BYTES_MAX),
            (b"long\n", UNVALIDATED_REPLY_BYTES_MAX),
            (b"long".ljust(600, b"\0"), 600),
        ):
            answer = client.ask(question)
            assert most - 2 < len(answer) <= most
            assert set(answer.removesuffix(b"\n").removesuffix(ELLIPSIS).decode()) == {"ä"}
            assert answer.removesuffix(b"\n").endswith(ELLIPSIS)
            assert answer.endswith(b"\n") == question.endswith(b"\n")
        assert client.ask(b"long".ljust(800, b"\0")).decode() == WORDS["long"]
        assert client.ask(b"long\n".ljust(801, b"\0")).decode() == WORDS["long"] + "\n"
    assert server.statistics().amplification_blocked == 0


@each_way
@pytest.mark.parametrize("question", [b"long", b"long\n"])
@pytest.mark.parametrize("proof", ["unixgram", "any size"])
def test_a_long_answer_is_whole_over_unix_sockets_or_with_answer_any_size(
    engine, backend, serve, file, tmp_path, proof, question
) -> None:
    where = f"unixgram:{tmp_path}/dictionary" if proof == "unixgram" else "udp://127.0.0.1:0"
    options = {
        "file": file,
        "engine": engine,
        "backend": backend,
        "answer_any_size": proof == "any size",
    }
    server = serve("dictionary", where, **options)
    with socket.socket(
        socket.AF_UNIX if proof == "unixgram" else socket.AF_INET, socket.SOCK_DGRAM
    ) as sock:
        sock.settimeout(DEADLINE_S)
        sock.bind("" if proof == "unixgram" else ("127.0.0.1", 0))
        sock.sendto(question, server.endpoint.path or (server.endpoint.host, server.endpoint.port))
        assert sock.recv(65536).decode() == WORDS["long"] + "\n" * question.endswith(b"\n")


@each_way
def test_a_burst_of_many_peers_is_answered_each_its_own(engine, backend, udp) -> None:
    server = udp(rcvbuf=1 << 20)
    clients = [Client(server) for _ in range(20)]
    for client in clients:
        for word in WORDS:
            client.send(word.encode() + b"\0")
    for client in clients:
        assert [client.read().decode()[:200] for _ in WORDS] == [
            text[:200] for text in WORDS.values()
        ]
        client.sock.close()
    reaches(server, messages=120, replies=120)


@each_way
@pytest.mark.parametrize("workers", [2])
def test_several_workers_answer_from_one_file(engine, backend, udp, workers) -> None:
    server = udp(workers=workers)
    clients = [Client(server) for _ in range(40)]
    for client in clients:
        assert client.ask(b"a b") == b"two words"
        client.sock.close()
    assert all(each.messages for each in server.worker_statistics())


@each_way
def test_words_are_replaced_in_one_step_while_batches_are_answered(
    engine, backend, serve, tmp_path
) -> None:
    """Eight files; one burst is answered from one version or two consecutive ones."""
    path, size, version = tmp_path / "words", 500, 0

    def put() -> None:
        fresh = tmp_path / "new"
        write(fresh, {f"word{i}": f"version {version} of {i}" for i in range(size + version)})
        fresh.rename(path)

    put()
    server = serve("dictionary", "udp://127.0.0.1:0", file=str(path), rcvbuf=1 << 20)
    with Client(server) as client:
        for version in range(1, 9):
            put()
            assert server.reload() == str(path)
            seen = version - 1
            while seen < version:
                for i in range(100):
                    client.send(b"word%d" % i)
                for i in range(100):
                    head, _, rest = client.read().decode().partition(" of ")
                    assert rest == str(i)
                    assert seen <= int(head.removeprefix("version ")) <= version
                    seen = int(head.removeprefix("version "))


@settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    entries=st.dictionaries(
        st.text("abcä猫 ", min_size=1, max_size=6).map(str.strip).filter(bool),
        st.text("xyzö💡", min_size=1, max_size=400),
        min_size=1,
        max_size=40,
    ),
    data=st.data(),
)
@pytest.mark.native
def test_native_and_pure_say_the_same_to_anything(entries, data, tmp_path_factory) -> None:
    """Parity: words that are there, almost there, padded, with blanks, and any bytes at all."""
    file = write(tmp_path_factory.mktemp("words") / "file", entries)
    heads, known = (
        st.sampled_from([b"", b" "]),
        st.sampled_from([word.encode() for word in entries]),
    )
    tails = st.sampled_from([b"", b"\n", b"\r\n", b"\0", b" ", b"\0" * 700, b"\n\0rest", b"x"])
    questions = data.draw(
        st.lists(
            st.one_of(
                st.binary(max_size=30),
                st.builds(lambda *parts: b"".join(parts), heads, known, tails),
            ),
            min_size=1,
            max_size=60,
        )
    )
    questions = [question for question in questions if question not in (b"unknown", b"unknown\n")]
    found = []
    for backend in BACKENDS:
        with (
            fastnet.serve(
                "dictionary", "udp://127.0.0.1:0", file=file, backend=backend, rcvbuf=1 << 22
            ) as server,
            Client(server) as client,
        ):
            for question in questions:
                client.send(question)
            found.append([client.read() for _ in questions])
    assert found[0] == found[1]
    assert all(
        len(answer) <= max(512, len(asked))
        for answer, asked in zip(found[0], questions, strict=True)
    )


LINES = [name for name in ENGINES if ENGINES[name].python and not ENGINES.why_not(name, "python")]
each_engine = pytest.mark.parametrize("engine", LINES)


@pytest.fixture
def lines(serve, file) -> Callable[..., Server]:
    return lambda engine, **options: serve(
        "dictionary", "tcp://127.0.0.1:0", file=file, engine=engine, **options
    )


@each_engine
@pytest.mark.parametrize("chunk", [1, 7, 100_000], ids="chunk={}".format)
def test_lines_are_answered_in_order_whatever_the_chunks(engine, lines, chunk) -> None:
    asked = b"cat\nnosuch\r\n\n \xff\nlong\nunknown\ncat\0padding\n" * 20 + b"a b"
    answers = [
        "Katze: das Tier",
        "unknown",
        "unknown",
        "unknown",
        WORDS["long"],
        "unbekannt",
        "Katze: das Tier",
    ] * 20
    server = lines(engine)
    peer = connect(server.endpoint)
    with peer.sending(asked, chunk):
        assert peer.read_to_end().decode() == "".join(
            f"{answer}\n" for answer in [*answers, "two words"]
        )
    peer.close()
    assert settled(server)["closed"]["finished"] == 1


@each_engine
def test_a_line_that_does_not_end_is_ended(engine, lines) -> None:
    server = lines(engine)
    peer = connect(server.endpoint)
    peer.send(b"cat\n" + b"x" * (DICTIONARY_LINE_BYTES_MAX + 1))
    assert peer.read_to_end() == b"Katze: das Tier\nunknown\n"
    peer.close()
    settled(server)


def test_lines_over_a_unix_socket(serve, file, tmp_path) -> None:
    server = serve("dictionary", f"unix:{tmp_path}/dict", file=file)
    peer = connect(Endpoint.parse(f"unix:{tmp_path}/dict"))
    assert peer.exchange(b"cat\n") == b"Katze: das Tier\n"
    peer.close()
    settled(server)


def test_what_it_cannot_be_without_and_where_it_cannot_be(tmp_path: Path, file) -> None:
    def refused(
        match: str, service: str = "dictionary", endpoint: str = "udp://127.0.0.1:0", **options: Any
    ) -> None:
        with pytest.raises((ConfigError, fastnet.UnsupportedError), match=match):
            fastnet.serve(service, endpoint, **options)

    refused("dictionary needs a file")
    refused("cannot read .*none: no such file", file=f"{tmp_path}/none")
    refused("is not a path", file="")
    refused("is not a path", file="a\0b")
    refused("echo takes no file", "echo", file=file)
    refused("echo takes no format", "echo", format="csv")
    refused("format cannot be 'pdf'", file=file, format="pdf")
    refused(
        "dictionary has no native form for connections",
        endpoint="tcp://127.0.0.1:0",
        backend="native",
        file=file,
    )
    assert set(DATAGRAMS) == {"mmsg", "single"}

"""Wire format of exec/1: vectors for other implementations, sizes, malformed bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.apps.exec import wire
from fastnet.apps.exec.wire import Refusal, Reply, Request, Status, WireError
from fastnet.limits import EXEC_DATAGRAM_BYTES_MAX, EXEC_PART_BYTES, EXEC_PARTS_PER_FETCH
from fastnet.security.mac import is_authentic
from tests.support.cli_process import ROOT

SECRET = bytes(range(32))
NONCE = bytes(range(16, 32))
COOKIE = bytes(range(32, 48))
TIMESTAMP_US = 1_781_872_345_000_000


def request(kind: int, body: bytes, cookie: bytes = COOKIE, sequence: int = 2) -> Request:
    return Request(kind, "alice", NONCE, TIMESTAMP_US, sequence, cookie, body)


HEAD = "05616c696365101112131415161718191a1b1c1d1e1f0006549a7c28a840"
"""Length and text of the key id, nonce, time."""

VECTORS = {
    "RUN": (
        request(wire.RUN, wire.pack_argv(["disk", "/var"]), wire.NO_COOKIE, 1),
        "464e583101" + HEAD + "00000001" + "00" * 16 + "0200046469736b00042f766172",
        "8deffd5b9c975f619005263dbda2e255d9c825f33c9516022e20c0f5d847cd30",
    ),
    "FETCH": (
        request(wire.FETCH, wire.pack_part_numbers([0, 258])),
        "464e583102" + HEAD + "00000002" + COOKIE.hex() + "020000000000000102",
        "cc1216439af07fa6a17dbe13a76fe8cb09694bc6c71c97dbe09e7c81172c204b",
    ),
    "DONE": (
        request(wire.DONE, b""),
        "464e583103" + HEAD + "00000002" + COOKIE.hex(),
        "d8fbf0b77f9b200197345f730ee70578c712fc7f0721fb87032304b41e0d4d09",
    ),
}

REPLY_HEAD = NONCE.hex() + "00000002"

REPLIES = {
    "CHALLENGE": (
        wire.CHALLENGE,
        COOKIE,
        "464e583181" + REPLY_HEAD + COOKIE.hex(),
        "1406a89ab2eacbfa0f0c93662607d39e7db5234fff692beb3f5192afaaf09a82",
    ),
    "REFUSED": (
        wire.REFUSED,
        wire.pack_refused(Refusal("clock", "late", TIMESTAMP_US)),
        "464e583182" + REPLY_HEAD + "040006549a7c28a8406c617465",
        "b3091d2600f8dcd173fb93e45c43551130b76532f069befb1c438744c92dd33a",
    ),
    "STATUS": (
        wire.STATUS,
        wire.pack_status(Status(wire.EXITED, 3, 4000, 5, wire.OUTPUT_CUT, 1_500_000)),
        "464e583183" + REPLY_HEAD + "02010000000300000fa000000005000000000016e360",
        "cef0f023368663606fb14faa97cf07b68322df217e0baaeeec4e07f6a5a3b51b",
    ),
    "PART": (
        wire.PART,
        wire.pack_part(1, b"x" * 1153),
        "464e583184" + REPLY_HEAD + "0000000178",
        "5bf165cbf88ab1afdd7ba4c90d963d14e1689c52238db6ac43656799c56b5888",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_request_is_these_bytes(name: str) -> None:
    value, data, signature = VECTORS[name]
    packed = wire.pack_request(value, SECRET)
    assert packed.hex() == data + signature
    assert is_authentic(packed, SECRET)
    assert wire.unpack_request(packed) == value


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_these_bytes(name: str) -> None:
    kind, body, data, signature = REPLIES[name]
    packed = wire.pack_reply(Reply(kind, NONCE, 2, body), SECRET)
    assert packed.hex() == data + signature
    assert wire.unpack_reply(packed, SECRET) == Reply(kind, NONCE, 2, body)


def test_the_vectors_of_the_document_are_these() -> None:
    text = (ROOT / "docs" / "exec.md").read_text().replace("\n", "")
    requests = [wire.pack_request(VECTORS[name][0], SECRET) for name in ("RUN", "FETCH")]
    replies = [
        wire.pack_reply(Reply(REPLIES[name][0], NONCE, 2, REPLIES[name][1]), SECRET)
        for name in REPLIES
    ]
    for datagram in (*requests, replies[0], replies[2]):
        assert datagram.hex() in text


def test_an_unknown_key_reply_has_25_bytes_and_no_mac() -> None:
    packed = wire.pack_reply(Reply(wire.UNKNOWN_KEY, NONCE, 2, b""), SECRET)
    assert packed.hex() == "464e583185" + REPLY_HEAD
    assert wire.unpack_reply(packed, SECRET).kind == wire.UNKNOWN_KEY


def test_a_challenge_is_shorter_than_the_shortest_request() -> None:
    shortest = Request(wire.DONE, "a", NONCE, 0, 0, wire.NO_COOKIE, b"")
    challenge = Reply(wire.CHALLENGE, NONCE, 0, COOKIE)
    assert len(wire.pack_reply(challenge, SECRET)) < len(wire.pack_request(shortest, SECRET))


def test_no_datagram_is_longer_than_every_network_carries() -> None:
    replies = [
        Reply(wire.PART, NONCE, 1, wire.pack_part(0, bytes(2 * EXEC_PART_BYTES))),
        Reply(wire.REFUSED, NONCE, 1, wire.pack_refused(Refusal("busy", "ä" * 2000))),
    ]
    packed = [wire.pack_reply(reply, SECRET) for reply in replies]
    packed.append(
        wire.pack_request(
            request(wire.FETCH, wire.pack_part_numbers([0] * EXEC_PARTS_PER_FETCH)), SECRET
        )
    )
    assert max(map(len, packed)) <= EXEC_DATAGRAM_BYTES_MAX


@pytest.mark.parametrize("at", range(5 + 1 + 5 + 44 + 9 + 32))
def test_a_changed_byte_anywhere_breaks_the_signature(at: int) -> None:
    packed = bytearray(
        wire.pack_request(request(wire.FETCH, wire.pack_part_numbers([0, 258])), SECRET)
    )
    packed[at] ^= 1
    assert not is_authentic(bytes(packed), SECRET)


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        min_size=1,
        max_size=255,
    )
)
def test_words_come_back_as_they_were(words: list[str]) -> None:
    assert wire.unpack_argv(wire.pack_argv(words)) == words


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\1", b"\1\0", b"\1\0\5abc", b"\1\0\1\xff", b"\1\0\1\0", b"\1\0\1ab", b"\2\0\1a"],
    ids=[
        "empty",
        "none",
        "no length",
        "half a length",
        "short",
        "not UTF-8",
        "NUL",
        "more",
        "fewer",
    ],
)
def test_words_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        wire.unpack_argv(body)


@pytest.mark.parametrize("words", [["a\0b"], ["x"] * 256], ids=["NUL", "256 words"])
def test_words_that_cannot_be_sent_are_refused(words: list[str]) -> None:
    with pytest.raises(WireError):
        wire.pack_argv(words)


def test_more_parts_than_a_window_are_not_asked_for() -> None:
    assert (
        wire.unpack_part_numbers(wire.pack_part_numbers([7] * EXEC_PARTS_PER_FETCH))
        == [7] * EXEC_PARTS_PER_FETCH
    )
    with pytest.raises(WireError):
        wire.unpack_part_numbers(wire.pack_part_numbers([7] * (EXEC_PARTS_PER_FETCH + 1)))


@given(
    st.one_of(
        st.binary(max_size=200), st.builds(lambda rest: wire.MAGIC + rest, st.binary(max_size=200))
    )
)
def test_random_bytes_are_an_error_and_nothing_else(data: bytes) -> None:
    readers = [
        wire.unpack_request,
        wire.unpack_argv,
        wire.unpack_part_numbers,
        wire.unpack_refused,
        wire.unpack_status,
        wire.unpack_part,
        lambda datagram: wire.unpack_reply(datagram, SECRET),
    ]
    for read in readers:
        try:
            read(data)
        except WireError:
            continue

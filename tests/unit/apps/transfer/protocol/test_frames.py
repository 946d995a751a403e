"""Fuzzed bytes of a peer end each side of a transfer with an error of its own kind.

It ends soon and touches nothing outside its folder. The bytes are generated from nothing, or from
what correct sides sent, with one or two frames damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastnet.apps.transfer.digest import Algorithm, FileDigest
from fastnet.apps.transfer.options import ReceivePolicy, TransferOptions
from fastnet.apps.transfer.protocol import frames
from fastnet.apps.transfer.protocol.entry import check_all, from_list
from fastnet.apps.transfer.protocol.frames import HEAD, MAGIC, FrameKind, ProtocolError
from fastnet.apps.transfer.protocol.handshake import Hello, perform_handshake
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.session.connection import TransferConnection
from fastnet.apps.transfer.session.receiver import Receiver
from fastnet.apps.transfer.session.sender import Sender
from fastnet.apps.transfer.session.session import SessionParameters, TransferSession
from fastnet.apps.transfer.source.walk import Filter, walk
from fastnet.apps.transfer.target.placement import Placement
from fastnet.apps.transfer.target.root import Root
from fastnet.errors import TransferError
from fastnet.ratelimit import ByteRateLimiter
from tests.support.clients import DEADLINE_S
from tests.support.forged_peer import digest_of, extent, file_row, folder_row, link_row, pack

OPTIONS = TransferOptions(stall_s=0.05)
EXAMPLES = int(os.environ.get("FASTNET_TEST_EXAMPLES", "150"))
"""Talks for each test; more find more."""
SLOW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

SCALAR = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(1 << 70), 1 << 70),
        st.floats(),
        st.text(max_size=20),
    ),
    st.sampled_from(
        ["f", "d", "l", "s", "..", "../a", "/a", "a", "a/b", ".a.fastnet-part", "\0", "\ud800"]
    ),
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
)
NAMES = (
    *(
        "version",
        "role",
        "nonce",
        "has_token",
        "digest",
        "dry_run",
        "entries",
        "last",
        "data_bytes",
        "skip",
        "held",
        "entry",
        "size",
    ),
    *(
        "code",
        "text",
        "hint",
        "transcript",
        "files",
        "bytes",
        "cpu_seconds",
        "refused",
        "refused_reason",
        "mover",
        "mover_reason",
    ),
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=8)
ROW = st.tuples(
    st.sampled_from("fdls"),
    st.sampled_from(
        [
            "a",
            "b",
            "a/b",
            "a/b/c",
            "..",
            "../a",
            "/a",
            "a/..",
            "",
            ".a.fastnet-part",
            "a\0",
            "é",
            "\ud800",
        ]
    ),
    st.integers(-1, 1 << 16),
    st.sampled_from([0, 1, -1, 10**18, 10**18, 1 << 62, 1 << 64]),
    st.sampled_from([0, 0, 0, 1, 5, 200_000, 1 << 62, 1 << 64]),
    st.sampled_from(["", "id", "..", "a", "/etc/passwd", "b/../.."]),
).map(list)


def as_frame(kind: int, fields: Any) -> bytes:
    payload = json.dumps(fields).encode()
    return HEAD.pack(kind, len(payload)) + payload


JSON_FRAME = st.builds(as_frame, st.sampled_from(list(FrameKind)), FIELDS)
MANIFEST = st.builds(
    lambda rows, last: as_frame(FrameKind.MANIFEST, {"entries": rows, "last": last}),
    st.lists(ROW, max_size=5),
    st.booleans(),
)
RAW_FRAME = st.builds(
    lambda kind, length, data: HEAD.pack(kind, length) + data,
    st.one_of(st.sampled_from(list(FrameKind)), st.integers(0, 255)),
    st.one_of(st.integers(0, 100), st.integers(0, (1 << 32) - 1)),
    st.binary(max_size=100),
)
BIG = bytes(200_000)


def whole_of_big() -> bytes:
    """The digest of BIG, sent in two extents."""
    digest = FileDigest(Algorithm("xxh3-128"))
    digest.add(0, 1000, digest_of(BIG[:1000]))
    digest.add(1000, 199_000, digest_of(BIG[1000:]))
    return digest.of_size(len(BIG))


def proof_of(*files: tuple[int, int, bytes]) -> str:
    proof = Transcript(Algorithm("xxh3-128"))
    for entry, size, digest in files:
        proof.add(entry, size, digest)
    return proof.digest().hex()


ROWS = [folder_row("a"), file_row("a/b", b"x"), link_row("l", "a"), file_row("big", BIG)]
HONEST_SENDER = [
    as_frame(FrameKind.MANIFEST, {"entries": ROWS[:2]}),
    as_frame(
        FrameKind.MANIFEST,
        {"entries": ROWS[2:], "last": True, "data_bytes": 1 + len(BIG), "dry_run": False},
    ),
    pack((1, b"x")),
    extent(3, 0, BIG[:1000]),
    HEAD.pack(FrameKind.KEEPALIVE, 0),
    extent(3, 1000, BIG[1000:]),
    as_frame(FrameKind.END, {"entry": 3, "size": len(BIG), "digest": whole_of_big().hex()}),
    as_frame(
        FrameKind.FINISH,
        {
            "transcript": proof_of((1, 1, digest_of(b"x")), (3, len(BIG), whole_of_big())),
            "files": 2,
        },
    ),
    as_frame(FrameKind.FINISH, {}),
]
SENT = proof_of((1, 1, digest_of(b"x")), (2, len(BIG), digest_of(BIG)))
"""What a sender of the fixture `source` has sent at its end."""
HONEST_RECEIVER = [
    as_frame(FrameKind.KEEPALIVE, {"bytes": 5}),
    as_frame(FrameKind.PLAN, {"skip": [], "held": [], "dry_run": False}),
]
HONEST_WORD = [
    as_frame(FrameKind.KEEPALIVE, {"bytes": 5}),
    as_frame(
        FrameKind.ACK,
        {
            "files": 2,
            "bytes": 1 + len(BIG),
            "transcript": SENT,
            "refused": 0,
            "refused_reason": "",
            "cpu_seconds": 0.1,
        },
    ),
]


@st.composite
def damaged(draw: st.DrawFn, honest: list[bytes]) -> bytes:
    """An honest frame with some bytes changed, doubled or lost."""
    data = bytearray(draw(st.sampled_from(honest)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, min(len(data), 200) - 1)))
        how = draw(st.sampled_from(["change", "insert", "drop"]))
        if how == "insert" or not data:
            data[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif how == "change":
            data[at] = draw(st.integers(0, 255))
        else:
            del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


ANYTHING = st.one_of(JSON_FRAME, MANIFEST, RAW_FRAME, st.binary(max_size=30))


@st.composite
def spoiled(draw: st.DrawFn, honest: list[bytes]) -> bytes:
    """What an honest side says, with something done to it from somewhere on."""
    said = list(honest)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(said) - 1))
        how = draw(st.sampled_from(["damage", "replace", "insert", "repeat", "drop", "end"]))
        if how == "damage":
            said[at] = draw(damaged([said[at]]))
        elif how == "replace":
            said[at] = draw(ANYTHING)
        elif how == "insert":
            said.insert(at, draw(ANYTHING))
        elif how == "repeat":
            said.insert(at, said[at])
        elif how == "drop" and len(said) > 1:
            del said[at]
        elif how == "end":
            said = said[: at + 1]
    return b"".join(said)


def talk(honest: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(spoiled(honest), spoiled(honest), st.lists(ANYTHING, max_size=6).map(b"".join))


@contextlib.contextmanager
def saying(data: bytes, later: bytes = b"") -> Iterator[TransferConnection]:
    """A connection whose peer sends `data`, `later` once it has received FINISH, then FIN.

    The peer reads all that it is sent.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(DEADLINE_S)
    finish_received = threading.Event()

    def say() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(data)
            if later:
                finish_received.wait(DEADLINE_S)
                theirs.sendall(later)
            theirs.shutdown(socket.SHUT_WR)

    def drain() -> None:
        with contextlib.suppress(OSError, struct.error), theirs.makefile("rb") as file:
            while head := file.read(HEAD.size):
                kind, length = HEAD.unpack(head)
                file.read(length)
                if kind in (FrameKind.FINISH, FrameKind.ERROR):
                    finish_received.set()
        finish_received.set()

    threads = [threading.Thread(target=say), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    try:
        yield TransferConnection(ours, "peer", OPTIONS.stall_s)
    finally:
        ours.close()
        for thread in threads:
            thread.join()
        theirs.close()


def ends_well_or_with_an_error_of_ours(session: TransferSession) -> None:
    with contextlib.closing(session), contextlib.suppress(TransferError):
        session.run()


@SLOW
@given(talk(HONEST_SENDER), st.sampled_from(["never", "always", "older", "rename"]))
@example(b"".join(HONEST_SENDER), "never")
def test_a_receiver_ends_every_talk_and_keeps_to_its_folder(said: bytes, overwrite: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside, inside = Path(name, "outside"), Path(name, "inside")
        outside.mkdir()
        inside.mkdir()
        (inside / "out").symlink_to(outside)
        with Root(str(inside)) as root, saying(said) as connection:
            ends_well_or_with_an_error_of_ours(
                Receiver(
                    SessionParameters(
                        connection, Algorithm("xxh3-128"), OPTIONS, lambda event: event.as_json()
                    ),
                    inbox=Placement(root, overwrite),
                    policy=ReceivePolicy(bytes_max=1 << 20, files_max=100),
                )
            )
        assert os.listdir(outside) == []
        assert sorted(os.listdir(name)) == ["inside", "outside"]
        for folder, below, _ in os.walk(inside):
            for each in below:
                os.chmod(os.path.join(folder, each), 0o700)  # or it could not be removed


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "source"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    (folder / "b").write_bytes(BIG)
    return folder


@SLOW
@given(
    said=st.one_of(st.just(b"".join(HONEST_RECEIVER)), talk(HONEST_RECEIVER)),
    word=talk(HONEST_WORD),
)
@example(said=b"".join(HONEST_RECEIVER), word=b"".join(HONEST_WORD))
def test_a_sender_ends_every_talk(source: Path, said: bytes, word: bytes) -> None:
    entries, places = walk([str(source)], Filter(), lambda path, why: None)
    with saying(said, word) as connection:
        ends_well_or_with_an_error_of_ours(
            Sender(
                SessionParameters(
                    connection, Algorithm("xxh3-128"), OPTIONS, lambda event: event.as_json()
                ),
                entries=entries,
                source_paths=places,
                rate_limiter=ByteRateLimiter(None),
            )
        )


HELLO = as_frame(
    FrameKind.HELLO,
    {"version": 1, "role": "send", "nonce": "00" * 32, "has_token": True, "digest": "none"},
)
HONEST_HELLO = [
    MAGIC + HELLO,
    as_frame(FrameKind.TOKEN, {"mac": "00" * 32}),
    HEAD.pack(FrameKind.KEEPALIVE, 0),
]


@SLOW
@given(talk(HONEST_HELLO), st.booleans(), st.sampled_from([b"", b"a token of ours"]))
@example(b"".join(HONEST_HELLO), False, b"a token of ours")
def test_a_handshake_always_ends_and_admits_no_peer_without_our_token(
    said: bytes, dialled: bool, token: bytes
) -> None:
    with saying(said) as connection:
        with contextlib.suppress(TransferError):
            peer = perform_handshake(connection, Hello("recv", token), dialled)
            assert not token
            assert peer.role == "send"


@given(st.one_of(st.binary(max_size=300), VALUE.map(lambda value: json.dumps(value).encode())))
def test_every_payload_is_unpacked_or_refused(payload: bytes) -> None:
    for unpack in (
        frames.unpack_json,
        frames.unpack_digest,
        lambda data: frames.unpack_files(data, 16),
    ):
        with contextlib.suppress(ProtocolError):
            unpack(payload)


@given(
    st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.binary(max_size=50)), max_size=9),
    st.sampled_from([0, 16, 32]),
)
def test_packed_files_are_unpacked_as_they_were(
    files: list[tuple[int, bytes]], digest_bytes: int
) -> None:
    packed = [(entry, content, bytes(digest_bytes)) for entry, content in files]
    frame = b"".join(frames.pack_files(packed))
    kind, length = frames.unpack_head(frame[: HEAD.size])
    assert (kind, length) == (FrameKind.PACK, len(frame) - HEAD.size)
    assert [
        (entry, bytes(content), digest)
        for entry, content, digest in frames.unpack_files(frame[HEAD.size :], digest_bytes)
    ] == packed


@given(st.binary(min_size=HEAD.size, max_size=HEAD.size))
def test_every_head_is_within_the_bound_of_its_kind_or_refused(head: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        kind, length = frames.unpack_head(head)
        assert length <= frames.PAYLOAD_MAX.get(kind, frames.CONTROL_BYTES_MAX)


@given(st.lists(st.one_of(VALUE, ROW), max_size=6))
def test_every_list_of_entries_is_a_tree_or_refused(rows: list[Any]) -> None:
    with contextlib.suppress(ProtocolError):
        every = check_all([from_list(row) for row in rows])
        assert len(set(every)) == len(every) == len(rows)
        folders = {parts for parts, row in zip(every, rows, strict=True) if row[0] == "d"}
        assert all(parts[:-1] in folders | {()} for parts in every)

"""The MACs that prove a token: their definition, and that none serves a second purpose."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.errors import ConfigError
from fastnet.limits import TOKEN_BYTES_MAX, TOKEN_BYTES_MIN
from fastnet.security.token import NONCE_BYTES, encode, nonce, proof, read_token, same

TOKEN = b"correct horse battery staple"
A, B, BINDING = bytes(range(32)), bytes(range(32, 64)), hashlib.sha256(b"certificate").digest()

VECTORS = [
    ("send", A, B, b"", "a68f1ef454ce17d8312d1aeadb1345cd0d1321c7f35c7c25c9d9e816f9e33838"),
    ("recv", B, A, b"", "6c87ca2de897235da8bb6e12e681e584c052e79544d91f784cd947a2d7dc97d3"),
    ("send", A, B, BINDING, "7587f92bdf12b2869a15674d72493c95442f61a42764dbe0cb8757a17b468db7"),
    ("recv", B, A, BINDING, "29fd23224fb728f7464297f400b142365ac4e7082675decc26b07fee0dc3ae40"),
]
"""For who writes another implementation; docs/protocol.md has the format."""


@pytest.mark.parametrize(("role", "mine", "theirs", "binding", "expected"), VECTORS)
def test_a_proof_is_the_digest_in_the_vectors(
    role: str, mine: bytes, theirs: bytes, binding: bytes, expected: str
) -> None:
    assert proof(TOKEN, role, mine, theirs, binding).hex() == expected


def test_a_proof_is_an_hmac_over_five_values_with_their_lengths() -> None:
    text = b"".join(
        len(value).to_bytes(8, "big") + value
        for value in (b"fastnet/1 token proof", b"recv", A, B, BINDING)
    )
    assert proof(TOKEN, "recv", B, A, BINDING) == hmac.new(TOKEN, text, hashlib.sha256).digest()


def test_a_peer_that_answers_with_our_own_proof_is_not_believed() -> None:
    """Whatever nonce it claims: with ours every value but the role is the same."""
    mine = nonce()
    for theirs in (nonce(), mine, b"", bytes(NONCE_BYTES)):
        for my_role, peers_role in (("send", "recv"), ("recv", "send")):
            shown = proof(TOKEN, my_role, mine, theirs, b"")
            assert not same(shown, proof(TOKEN, peers_role, theirs, mine, b""))


def test_two_sides_of_one_role_do_not_prove_anything_to_each_other() -> None:
    """Two senders that were led to each other, or one sender's proof shown to a second one."""
    first, second = nonce(), nonce()
    shown = proof(TOKEN, "send", first, second, b"")
    assert not same(shown, proof(TOKEN, "recv", first, second, b""))


def test_each_value_changes_the_proof() -> None:
    usual = {"token": TOKEN, "role": "send", "mine": A, "theirs": B, "binding": BINDING}
    other = {"token": TOKEN + b"x", "role": "recv", "mine": B, "theirs": A, "binding": b""}
    values = [usual, *(usual | {name: value} for name, value in other.items())]
    proofs = [proof(**each) for each in values]  # type: ignore[arg-type]
    assert len(set(proofs)) == len(proofs)


LISTS = st.lists(st.binary(max_size=20), max_size=4)


@given(LISTS, LISTS)
def test_no_two_lists_of_values_are_the_same_text(one: list[bytes], other: list[bytes]) -> None:
    assert (encode(*one) == encode(*other)) == (one == other)


def test_bytes_that_move_from_one_nonce_to_the_other_change_the_proof() -> None:
    whole = A + B
    proofs = {proof(TOKEN, "send", whole[:i], whole[i:], b"") for i in range(len(whole) + 1)}
    assert len(proofs) == len(whole) + 1


def test_nonces_are_fresh() -> None:
    assert len({nonce() for _ in range(100)}) == 100
    assert len(nonce()) == NONCE_BYTES


def test_only_equal_proofs_are_the_same() -> None:
    shown = proof(TOKEN, "send", A, B, b"")
    assert same(shown, bytes(shown))
    for other in (b"", shown[:-1], shown + b"\0", bytes([shown[0] ^ 1]) + shown[1:]):
        assert not same(shown, other)


def test_a_role_that_does_not_exist_is_our_mistake() -> None:
    with pytest.raises(ValueError):
        proof(TOKEN, "sender", A, B, b"")


def file(folder: Path, data: bytes, mode: int = 0o600) -> str:
    path = folder / "token"
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_token_is_a_file_without_its_final_newline(tmp_path: Path, end: bytes) -> None:
    for token in (
        TOKEN,
        b"\n" + TOKEN + b" ",
        b"x" * TOKEN_BYTES_MIN,
        b"\0\xff" * 20,
        b"x" * TOKEN_BYTES_MAX,
    ):
        assert read_token(file(tmp_path, token + end)) == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o610, 0o644, 0o620])
def test_a_token_that_others_may_open_is_not_taken(tmp_path: Path, mode: int) -> None:
    path = file(tmp_path, TOKEN, mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        read_token(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "only 0 bytes"),
        (b"x" * (TOKEN_BYTES_MIN - 1) + b"\n", "only 15 bytes"),
        (b"x" * (TOKEN_BYTES_MAX + 1), "more than 4096"),
        (b"x" * 10 * TOKEN_BYTES_MAX, "more than 4096"),
    ],
    ids=["empty", "short", "long", "very long"],
)
def test_a_token_that_is_too_short_or_too_long_is_not_taken(
    tmp_path: Path, data: bytes, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        read_token(file(tmp_path, data))
    assert "umask 077" in caught.value.hint


def test_what_is_no_file_with_a_token_is_a_config_error(tmp_path: Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "missing"), "a\0b", "", "/dev/null"):
        with pytest.raises(ConfigError):
            read_token(path)


def test_a_path_with_control_characters_is_shown_without_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_token(str(tmp_path / "\x1b[2Jtoken\n"))
    assert str(caught.value).isprintable()


def test_a_token_may_come_through_a_pipe(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(theirs, TOKEN + b"\n"), os.close(theirs)))
    writer.start()
    try:
        assert read_token(f"/dev/fd/{ours}") == TOKEN
    finally:
        writer.join()
        os.close(ours)


def test_the_vectors_cover_both_roles_with_and_without_tls() -> None:
    seen = {(role, bool(binding)) for role, _, _, binding, _ in VECTORS}
    assert seen == set(itertools.product(("send", "recv"), (True, False)))

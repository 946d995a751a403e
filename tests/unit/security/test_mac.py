"""MACs at the end of datagrams."""

from __future__ import annotations

import pytest

from fastnet.security.mac import KEY_ID, MAC_BYTES, is_authentic, mac

SECRET = bytes(range(32))


def test_the_mac_is_hmac_sha_256_of_rfc_4231() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert mac(b"Jefe", b"what do ya want for nothing?").hex() == expected


@pytest.mark.parametrize("data", [b"", b"datagram", bytes(1200)])
def test_a_datagram_that_ends_with_its_mac_is_authentic(data: bytes) -> None:
    assert is_authentic(data + mac(SECRET, data), SECRET)


@pytest.mark.parametrize("at", [0, 7, 8, 8 + MAC_BYTES - 1])
def test_one_changed_bit_makes_a_datagram_unauthentic(at: int) -> None:
    datagram = bytearray(b"datagram" + mac(SECRET, b"datagram"))
    datagram[at] ^= 1
    assert not is_authentic(bytes(datagram), SECRET)


def test_a_datagram_shorter_than_a_mac_is_unauthentic() -> None:
    assert not is_authentic(b"", SECRET)
    assert not is_authentic(mac(SECRET, b"")[:-1], SECRET)


def test_a_mac_of_another_key_is_unauthentic() -> None:
    assert not is_authentic(b"x" + mac(b"other", b"x"), SECRET)


@pytest.mark.parametrize("key_id", ["", "a b", "a" * 33, "ä", "a\n"])
def test_a_key_id_is_1_to_32_ascii_characters(key_id: str) -> None:
    assert not KEY_ID.fullmatch(key_id)

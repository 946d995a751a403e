"""Address tokens: bound to address, context, time and server."""

from __future__ import annotations

import pytest

from fastnet.udp.address_token import AddressToken

PEER = ("192.0.2.1", 5000)
PERIOD_S = 60.0


@pytest.fixture
def tokens() -> AddressToken:
    return AddressToken(PERIOD_S, 16)


def test_a_token_has_the_size_asked_for_and_is_the_same_within_a_period(
    tokens: AddressToken,
) -> None:
    assert len(tokens.issue(PEER, 0.0)) == 16
    assert tokens.issue(PEER, 0.0) == tokens.issue(PEER, PERIOD_S - 1)


@pytest.mark.parametrize("age_s", [0.0, PERIOD_S - 1, PERIOD_S, 2 * PERIOD_S - 1])
def test_a_token_is_valid_in_its_period_and_the_next(tokens: AddressToken, age_s: float) -> None:
    assert tokens.verify(tokens.issue(PEER, 0.0), PEER, age_s)


@pytest.mark.parametrize("now_s", [-1.0, 2 * PERIOD_S])
def test_a_token_is_invalid_before_its_period_and_after_the_next(
    tokens: AddressToken, now_s: float
) -> None:
    assert not tokens.verify(tokens.issue(PEER, 0.0), PEER, now_s)


@pytest.mark.parametrize(
    "other", [("192.0.2.1", 5001), ("192.0.2.2", 5000), ("2001:db8::1", 5000, 0, 0)]
)
def test_a_token_is_valid_for_its_address_only(tokens: AddressToken, other: tuple) -> None:
    assert not tokens.verify(tokens.issue(PEER, 0.0), other, 0.0)


def test_flow_label_and_scope_number_do_not_change_a_token(tokens: AddressToken) -> None:
    token = tokens.issue(("fe80::1%lo", 5000, 0, 1), 0.0)
    assert tokens.verify(token, ("fe80::1%lo", 5000, 7, 2), 0.0)


def test_a_token_is_valid_for_its_context_only(tokens: AddressToken) -> None:
    token = tokens.issue(PEER, 0.0, b"nonce")
    assert tokens.verify(token, PEER, 0.0, b"nonce")
    assert not tokens.verify(token, PEER, 0.0)
    assert not tokens.verify(token, PEER, 0.0, b"other")


def test_another_server_does_not_accept_a_token(tokens: AddressToken) -> None:
    assert not AddressToken(PERIOD_S, 16).verify(tokens.issue(PEER, 0.0), PEER, 0.0)


def test_a_token_of_another_length_is_invalid(tokens: AddressToken) -> None:
    assert not tokens.verify(b"", PEER, 0.0)
    assert not tokens.verify(tokens.issue(PEER, 0.0) + b"x", PEER, 0.0)

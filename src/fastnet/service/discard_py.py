"""Discard (RFC 863): discards all input, sends nothing, closes when the peer does."""

from __future__ import annotations

from fastnet.service.contract import Service


class Discard(Service):
    accepts_input = False


def create() -> Service:
    return Discard()

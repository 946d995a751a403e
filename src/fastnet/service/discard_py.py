"""Discard (RFC 863): reads everything, answers nothing, closes when the peer does."""

from __future__ import annotations

from fastnet.service.contract import Service


class Discard(Service):
    reads = False


def create() -> Service:
    return Discard()

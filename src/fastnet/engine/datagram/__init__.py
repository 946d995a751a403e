"""Datagram engines, by name. To add one, write its file and its row."""

from __future__ import annotations

from fastnet.engine.stream import EngineRow
from fastnet.registry import Registry

DATAGRAMS: Registry[EngineRow] = Registry(
    __name__,
    {
        "mmsg": EngineRow(
            "batches: recvmmsg(2), sendmmsg(2), replies to one peer joined",
            native="mmsg_c",
            when="`auto` for datagrams",
        ),
        "single": EngineRow(
            "one by one: recvmsg(2), sendmsg(2)",
            "single_py",
            "single_c",
            when="`auto` in pure Python; to measure what batches save",
        ),
    },
)

"""What is done with the bytes: one row a service. To add one, write its file and its row."""

from __future__ import annotations

from dataclasses import dataclass

from fastnet.registry import BACKENDS, Registry, Row


@dataclass(frozen=True)
class ServiceRow(Row):
    """rfc: where the protocol is described. port: the well-known one. options: settings that
    `create`
    takes.

    required: those without which there is nothing to serve. connections: backends whose engines can
    serve connections with it; every one that it has serves datagrams. loads: it is made from
    `file`, and `replace` takes what a newer one says.
    """

    rfc: int = 0
    port: int = 0
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    connections: tuple[str, ...] = BACKENDS
    loads: bool = False


SERVICES: Registry[ServiceRow] = Registry(
    __name__,
    {
        "echo": ServiceRow(
            "every byte goes back to its sender",
            "echo_py",
            "echo_c",
            rfc=862,
            port=7,
            options=("suffix",),
        ),
        "discard": ServiceRow(
            "reads everything, answers nothing", "discard_py", "discard_c", rfc=863, port=9
        ),
        "chargen": ServiceRow(
            "an endless pattern of lines", "chargen_py", "chargen_c", rfc=864, port=19
        ),
        "daytime": ServiceRow(
            "the date and time, then the end", "daytime_py", "daytime_c", rfc=867, port=13
        ),
        "dictionary": ServiceRow(
            "words and their translations, from a file",
            "dictionary_py",
            "dictionary_c",
            options=("file", "format"),
            required=("file",),
            connections=("python",),
            loads=True,
        ),
        "handler": ServiceRow(
            "a Python function answers each datagram",
            "handler_py",
            "handler_c",
            options=("handler",),
            required=("handler",),
            connections=(),
        ),
    },
)

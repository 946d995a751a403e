"""Services: what is done with the received bytes, one row each.

To add a service, write its file and its row. A row carries the settings of its service; config,
plan, server and command line read them from here and name no service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastnet.limits import NUMBER_MAX, SUFFIX_BYTES_MAX
from fastnet.registry import BACKENDS, Registry, Row
from fastnet.service._dictionary_file import AUTO, FORMATS, load_dictionary
from fastnet.service.contract import Content


@dataclass(frozen=True)
class Setting:
    """One setting of a service: an option of `fastnet.serve` and of the command line."""

    name: str
    help: str
    unit: str = ""
    """What its value is called in --help."""
    default: Any = None
    choices: tuple[str, ...] = ()
    is_path: bool = False
    bytes_max: int = NUMBER_MAX
    called_with: str = ""
    """What the function that it is gets; such a setting exists in Python only."""
    required: str = ""
    """How to write it, if there is nothing to serve without it."""
    convert: Callable[[Any], Any] = lambda value: value
    """Makes the argument of `create` from a value."""


@dataclass(frozen=True)
class ServiceRow(Row):
    """A service."""

    rfc: int = 0
    """The RFC of its protocol, 0 if it has none."""
    port: int = 0
    """Its well-known port."""
    settings: tuple[Setting, ...] = ()
    """Arguments of `create`, or of `load` if it has one."""
    connections: tuple[str, ...] = BACKENDS
    """Backends that serve connections with it; every backend that it has serves datagrams."""
    load: Callable[[Mapping[str, Any]], Content] | None = None
    """Reads the file that the service answers from; `replace` of the service gets the result, and
    `answer_up_to` of the service the bound of a reply to an unvalidated address.
    """

    @property
    def path_setting(self) -> str:
        """The setting that is the path of its file."""
        return next(each.name for each in self.settings if each.is_path)

    @property
    def is_configurable(self) -> bool:
        """Whether a file or the command line can ask for it."""
        return not any(each.called_with for each in self.settings)

    def arguments(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `create`."""
        if self.load is not None:
            return {}
        return {each.name: each.convert(settings[each.name]) for each in self.settings}


SERVICES: Registry[ServiceRow] = Registry(
    __name__,
    {
        "echo": ServiceRow(
            "every byte goes back to its sender",
            "echo_py",
            "echo_c",
            rfc=862,
            port=7,
            settings=(
                Setting(
                    "suffix",
                    "Text appended to each reply (echo only).",
                    "TEXT",
                    default="",
                    bytes_max=SUFFIX_BYTES_MAX,
                    convert=lambda text: text.encode("utf-8", "surrogateescape"),
                ),
            ),
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
            settings=(
                Setting(
                    "file",
                    "File of the dictionary; it is read again when it changes.",
                    "FILE",
                    is_path=True,
                    required="Name it: --file dict.txt, with word:translation in each line",
                ),
                Setting(
                    "format",
                    "Format of the entries; auto detects it.",
                    default=AUTO,
                    choices=(AUTO, *FORMATS),
                ),
            ),
            connections=("python",),
            load=load_dictionary,
        ),
        "handler": ServiceRow(
            "a Python function answers each datagram",
            "handler_py",
            "handler_c",
            settings=(
                Setting(
                    "handler",
                    "Function that answers each datagram.",
                    called_with="a memoryview and an address",
                    required="It is a Python function: "
                    "fastnet.serve(function, 'udp://127.0.0.1:7000')",
                ),
            ),
            connections=(),
        ),
    },
)

"""What a chat's datagrams are.

The textbook protocol: a datagram is a text in UTF-8 that ends at the first NUL, for programs that
send whole buffers, or at its end; a newline before that is dropped.

    online                  from now on this address gets every message
    offline                 from now on it does not
    any other text          a message; everybody who is online gets ADDRESS--PORT#TEXT, the sender too
    a text of who is not    a hint, HINT, and nobody gets it

chat/1, between fastnets: the bytes "\\x01chat/1 " and a JSON object in UTF-8. A client says

    {"do": "join", "name": N, "room": R, "cookie": C, "said": K}
                                                        be N in R, "" for where textbook programs are; K: the last message of
                                                        this client's that was taken, 0 at first
    {"do": "say", "cookie": C, "id": K+1, "text": T}    one at a time: the next one when this is answered
    {"do": "here", "cookie": C, "got": G}               a sign of life; events up to number G have arrived
    {"do": "who", "cookie": C}                          who is in the room
    {"do": "leave", "cookie": C}                        the end

and a server

    {"is": "challenge", "cookie": C}                    no such cookie from this address: join again, with this one
    {"is": "refused", "why": W}                         the name cannot be had
    {"is": "welcome", "name": N, "visit": V, "online": COUNT}
    {"is": "taken", "id": K}                            the message is on its way to everybody
    {"is": "wait", "id": K, "seconds": S}               it is not: too many at once, try again later
    {"is": "event", "visit": V, "number": G, "kind": K, "who": N, "text": T}
                                                        K: said, came, went, or earlier, for what was said before
    {"is": "who", "online": COUNT, "names": [...]}      as many names as fit
    {"is": "bye"}

Events of a visit are numbered from 1 and sent until they are acknowledged, so none is missed and
none shown twice.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from fastnet.limits import CHAT_DATAGRAM_BYTES_MAX, CHAT_NAME_CHARACTERS_MAX

MARK = b"\x01chat/1 "
ONLINE, OFFLINE = "online", "offline"
HINT = "you are not online: send `online` first"
TOO_LONG = "not sent: too long"
TOO_FAST = "not sent: too many messages, wait a little"
FULL = "the chat is full: try again later"
SERVER_SAYS = (HINT, TOO_LONG, TOO_FAST, FULL)
"""Nobody types these. Who sends them is an echo of ours, or another server."""

FORWARDED = re.compile(r"[0-9A-Fa-f.:%a-z]+--[0-9]+#", re.ASCII)
"""The beginning of what a server sends, and no person."""

JOINERS = "\u200c\u200d"
"""Invisible, and harmless: Persian and emoji need them."""


class ChatError(ValueError):
    """These bytes are no datagram of chat/1."""


def text_of(datagram: bytes) -> str:
    """The text of a datagram, as it may be shown: one line, and nothing in it that a terminal would
    obey.
    """
    return neutral(datagram.partition(b"\0")[0].rstrip(b"\r\n").decode("utf-8", "replace"))


def neutral(text: str) -> str:
    """Blanks for newlines and tabs, U+FFFD for control characters, bidirectional overrides and what
    is no character.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in JOINERS else " " if c.isspace() else "\ufffd" for c in text
    )


def forwarded(host: str, port: int, text: str) -> bytes:
    """A message as the textbook has it."""
    return f"{host}--{port}#{text}".encode("utf-8", "replace")


def is_from_a_server(text: str) -> bool:
    """Whether a server said this; to answer it would be the beginning of a loop."""
    return text.startswith(SERVER_SAYS) or FORWARDED.match(text) is not None


def name_of(text: object) -> str:
    """A member's name in one spelling: letters and digits of any script, and _ . - inside. Raises
    ChatError.
    """
    name = unicodedata.normalize("NFC", text) if isinstance(text, str) else ""
    plain = name.replace("_", "").replace(".", "").replace("-", "")
    if not 1 <= len(name) <= CHAT_NAME_CHARACTERS_MAX or not plain.isalnum() or "--" in name:
        raise ChatError(
            f"a name has 1 to {CHAT_NAME_CHARACTERS_MAX} letters and digits, and _ . - between them"
        )
    return name


def pack(message: dict[str, Any]) -> bytes:
    return MARK + json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )


def unpack(datagram: bytes) -> dict[str, Any]:
    """The object of a datagram that begins with MARK; padding of NUL is dropped. Raises
    ChatError.
    """
    if len(datagram) > CHAT_DATAGRAM_BYTES_MAX:
        raise ChatError("too long")
    return read_object(datagram[len(MARK) :].partition(b"\0")[0])


def read_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object, in UTF-8 if in bytes. Raises ChatError."""
    try:
        message = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ChatError("not JSON") from error
    if not isinstance(message, dict):
        raise ChatError("not an object")
    return message


def number_in(message: dict[str, Any], name: str) -> int:
    """Raises ChatError."""
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ChatError(f"{name} is not a number")
    return value


def text_in(message: dict[str, Any], name: str) -> str:
    """Raises ChatError."""
    value = message.get(name)
    if not isinstance(value, str):
        raise ChatError(f"{name} is not a text")
    return value

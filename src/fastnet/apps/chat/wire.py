"""Datagrams of the textbook chat protocol and of chat/1.

The textbook protocol: a datagram is a text in UTF-8 that ends at the first NUL, for programs that
send whole buffers, or at its end; a newline before that is dropped.

    online          add the sender to the members, who receive every message
    offline         remove the sender from the members
    any other text  from a member: a message; all members, the sender included, receive
                    ADDRESS--PORT#TEXT
                    from any other address: answered with HINT and not distributed

chat/1, between fastnet clients and servers: PREFIX and a JSON object in UTF-8. C is the cookie of
the client's address. Requests of a client, by "type":

    type       fields                        meaning
    join       cookie, name, room, last_id   become a member of a room; room "" is the textbook
                                             programs'. last_id: the client's last accepted
                                             message, 0 at first
    message    cookie, id, text              send a message; id is last_id + 1. One at a time:
                                             the next one when this one is answered
    ack        cookie, number                keepalive; events up to number have arrived
    who        cookie                        list the members of the room
    leave      cookie                        end the membership

Datagrams of a server:

    type       fields                        meaning
    challenge  cookie                        the request had no valid cookie: join with this one
    refused    reason                        the name is not available, or the server is full
    welcome    name, session, online         answer to join; online: members of the room
    accepted   id                            the message is distributed
    wait       id, seconds                   it is not: the rate limit was reached
    event      session, number, kind,        kind: message, joined, left, or history for a
               sender, text                  message from before the join
    ack        -                             answer to ack
    who        online, names                 as many names as fit
    bye        -                             answer to leave

Events of a session are numbered from 1 and retransmitted until acknowledged, so a client displays
each one exactly once and in order.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from fastnet.limits import CHAT_DATAGRAM_BYTES_MAX, CHAT_NAME_CHARACTERS_MAX

PREFIX = b"\x01chat/1 "
"""First bytes of every datagram of chat/1. No textbook program sends a control character first."""

ONLINE, OFFLINE = "online", "offline"
HINT = "you are not online: send `online` first"
TOO_LONG = "not sent: too long"
TOO_FAST = "not sent: too many messages, wait a little"
FULL = "the chat is full: try again later"
SERVER_TEXTS = (HINT, TOO_LONG, TOO_FAST, FULL)
"""Texts that only servers send: a datagram with one is an echo of ours, or another server's."""

FORWARDED_PREFIX = re.compile(r"[0-9A-Fa-f.:%a-z]+--[0-9]+#", re.ASCII)
"""First characters of a message that a server distributed."""

NAMES_BYTES_MAX = 900
"""Bytes of names in an answer to `who`."""

JOINERS = "\u200c\u200d"
"""Invisible and harmless characters that Persian and emoji need."""


class ChatError(ValueError):
    """The bytes are not a valid datagram of chat/1."""


def decode_text(datagram: bytes) -> str:
    """The text of a textbook datagram: one line, sanitized."""
    return sanitize(datagram.partition(b"\0")[0].rstrip(b"\r\n").decode("utf-8", "replace"))


def sanitize(text: str) -> str:
    """Replace what a terminal would execute or display out of order.

    Newlines and tabs become blanks; control characters, bidirectional overrides and unassigned
    characters become U+FFFD.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in JOINERS else " " if c.isspace() else "\ufffd" for c in text
    )


def format_forwarded(host: str, port: int, text: str) -> bytes:
    """A message in the form in which the textbook protocol distributes it."""
    return f"{host}--{port}#{text}".encode("utf-8", "replace")


def is_server_text(text: str) -> bool:
    """Whether only a server sends this text; answering it could start a loop of two servers."""
    return text.startswith(SERVER_TEXTS) or FORWARDED_PREFIX.match(text) is not None


def parse_name(text: object) -> str:
    """A member's or room's name in Unicode form NFC.

    Raises:
        ChatError: it is not 1 to CHAT_NAME_CHARACTERS_MAX letters and digits of any script, with
            single _ . - between them.
    """
    name = unicodedata.normalize("NFC", text) if isinstance(text, str) else ""
    plain = name.replace("_", "").replace(".", "").replace("-", "")
    if not 1 <= len(name) <= CHAT_NAME_CHARACTERS_MAX or not plain.isalnum() or "--" in name:
        raise ChatError(
            f"a name has 1 to {CHAT_NAME_CHARACTERS_MAX} letters and digits, and _ . - between them"
        )
    return name


def pack(message: dict[str, Any]) -> bytes:
    """The datagram of a chat/1 object."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return PREFIX + text.encode("utf-8", "replace")


def pack_who(names: list[str]) -> bytes:
    """The answer to `who`: as many names as fit into NAMES_BYTES_MAX."""
    fitting, left_bytes = [], NAMES_BYTES_MAX
    for name in names:
        left_bytes -= len(name.encode()) + 3
        if left_bytes < 0:
            break
        fitting.append(name)
    return pack({"type": "who", "online": len(names), "names": fitting})


def unpack(datagram: bytes) -> dict[str, Any]:
    """The object of a datagram with PREFIX; NUL padding is dropped. Raises ChatError."""
    if len(datagram) > CHAT_DATAGRAM_BYTES_MAX:
        raise ChatError("too long")
    return parse_object(datagram[len(PREFIX) :].partition(b"\0")[0])


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object; bytes are UTF-8. Raises ChatError."""
    try:
        message = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ChatError("not JSON") from error
    if not isinstance(message, dict):
        raise ChatError("not an object")
    return message


def get_number(message: dict[str, Any], field: str) -> int:
    """A field that is an integer from 0 to 2**53 - 1. Raises ChatError."""
    value = message.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ChatError(f"{field} is not a number")
    return value


def get_text(message: dict[str, Any], field: str) -> str:
    """A field that is a string. Raises ChatError."""
    value = message.get(field)
    if not isinstance(value, str):
        raise ChatError(f"{field} is not a text")
    return value

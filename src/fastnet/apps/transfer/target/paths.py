"""Path components that a sender may use, and the names of partial files.

Facts. A Linux file name is any bytes but NUL and '/', at most 255 of them. Text stands for bytes
that are no UTF-8 by lone surrogates (PEP 383), so two texts may be the same bytes. A name that
reaches the file system unchecked broke nearly every tool of this kind: `..`, absolute names, a link
first and then a file below it.
Decision: a path is taken apart here and nowhere else, into components that are each one step down;
what comes out is in the form that the file system gives back, so equal names are equal texts.
Control characters are allowed: escaping them is a matter of display (errors.printable).
Names that we give to unfinished files are not a sender's to use.
"""

from __future__ import annotations

import os
import re

from fastnet.errors import printable
from fastnet.limits import DEPTH_MAX, NAME_BYTES_MAX, NUMBERED_SUFFIX_BYTES_MAX, PATH_BYTES_MAX

PART_TAIL = ".fastnet-part"
JOURNAL_TAIL = ".fastnet-journal"
SHOWN_CHARACTERS = 80
SHORTENED = re.compile(r"~[0-9a-f]{32}\Z")


class BadName(ValueError):
    """A path that a sender may not name. path: as it came. why: the words after "it"."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"the name {shown(path)} is not taken: it {why}")
        self.path = path
        self.why = why


def shown(path: str) -> str:
    """A name as messages quote it, however long it is and whatever is in it."""
    return (
        f"'{printable(path)}'"
        if len(path) <= SHOWN_CHARACTERS
        else f"'{printable(path[:SHOWN_CHARACTERS])}'..."
    )


def parts_of(path: str) -> tuple[str, ...]:
    """The components of a relative path, each one step down from the one before.

    Raises BadName.
    """
    why = not_bytes(path)
    if why:
        raise BadName(path, why)
    if not path:
        raise BadName(path, "is empty")
    encoded = os.fsencode(path)
    if len(encoded) > PATH_BYTES_MAX:
        raise BadName(path, f"has {len(encoded)} bytes, and {PATH_BYTES_MAX} are the most")
    if encoded.startswith(b"/"):
        raise BadName(path, "is absolute")
    parts = tuple(os.fsdecode(encoded).split("/"))
    if len(parts) > DEPTH_MAX:
        raise BadName(path, f"is {len(parts)} levels deep, and {DEPTH_MAX} are the most")
    for part in parts:
        why = not_a_component(part)
        if why:
            raise BadName(path, why)
    return parts


def is_plain(path: str, name: str) -> bool:
    """Whether `name`, the last component of `path`, is harmless on every file system.

    A quick check that is true of most names.
    """
    return (
        path.isascii()
        and 0 < len(name) <= NAME_BYTES_MAX
        and len(path) <= PATH_BYTES_MAX
        and name[0] != "."
        and "\0" not in name
    )


def not_bytes(text: str) -> str:
    """Why the kernel cannot be given this text, or ""."""
    if "\0" in text:
        return "has a NUL in it"
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return "stands for no bytes"
    return ""


def not_a_component(part: str) -> str:
    """Why this is not the name of one thing in a folder, or ""."""
    if not part:
        return "has an empty component"
    if part in (".", ".."):
        return f"has the component '{part}'"
    if len(os.fsencode(part)) > NAME_BYTES_MAX:
        return f"has a component of more than {NAME_BYTES_MAX} bytes"
    if is_ours(part):
        return "is what unfinished files are called here"
    return ""


def is_ours(name: str) -> bool:
    """Whether this is a name that we give to unfinished files and their journals."""
    return name.startswith(".") and name.endswith((PART_TAIL, JOURNAL_TAIL))


def check_link(at: tuple[str, ...], target: str) -> str | None:
    """Why a symbolic link at `at`, below the root, may not have this target.

    None when it may.

    Fact. `a/link/..` is not `a` when `link` leads elsewhere: `..` after a name may climb out though
    each link looks harmless.
    Decision: `..` stands only in front. There it climbs through folders that are known to be none
    but folders; after that each name goes down, or through another link that was checked the same
    way.
    """
    if not target:
        return "leads nowhere"
    why = not_bytes(target)
    if why:
        return why
    if len(os.fsencode(target)) >= PATH_BYTES_MAX:
        return f"has a target of {PATH_BYTES_MAX} bytes or more"
    if target.startswith("/"):
        return "leads to an absolute path"
    height, named = len(at) - 1, False
    for step in target.split("/"):
        if step == "..":
            if named:
                return "has '..' after a name"
            height -= 1
            if height < 0:
                return "leads out of the folder"
        named = named or step not in ("", ".", "..")
    return None


def part_name(name: str) -> str:
    """What the file `name` is called, in the same folder, while it is not whole."""
    return unfinished(name, PART_TAIL)


def journal_name(name: str) -> str:
    """What the record of how much of `name` is there is called, in the same folder."""
    return unfinished(name, JOURNAL_TAIL)


def unfinished(name: str, tail: str) -> str:
    """`.NAME` and tail.

    What would be too long ends in a digest of the name, and so does what looks as if it did.
    """
    if len(os.fsencode(name)) + 1 + len(tail) > NAME_BYTES_MAX or SHORTENED.search(name):
        from hashlib import blake2b  # imported here: few names need it

        digest = "~" + blake2b(os.fsencode(name), digest_size=16).hexdigest()
        name = cut(name, NAME_BYTES_MAX - 1 - len(digest) - len(tail)) + digest
    return f".{name}{tail}"


def numbered(name: str, n: int) -> str:
    """Another name for `name`: `photo (2).jpg`, `backup (2).tar.gz`."""
    stem, suffix = os.path.splitext(name)
    if stem.endswith(".tar") and stem != ".tar":
        stem, suffix = stem.removesuffix(".tar"), ".tar" + suffix
    if len(os.fsencode(suffix)) > NUMBERED_SUFFIX_BYTES_MAX:
        stem, suffix = name, ""
    tail = f" ({n}){suffix}"
    return cut(stem, NAME_BYTES_MAX - len(os.fsencode(tail))) + tail


def cut(text: str, bytes_max: int) -> str:
    """The longest prefix of text, in whole characters, of at most bytes_max bytes."""
    while len(os.fsencode(text)) > bytes_max:
        text = text[:-1]
    return text

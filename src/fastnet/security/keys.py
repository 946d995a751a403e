"""Keys file of exec and chat: one id and secret a line.

    # id     64 hexadecimal digits or more
    alice    5f0c...

The file is a password: its owner is the user of the process or root, and no other user may read it.
`fastnet exec key NAME` makes a line. Client and server read the same form; a server has several
keys, a client usually one.
"""

from __future__ import annotations

import os
import secrets
import stat

from fastnet.errors import ConfigError, printable, reason
from fastnet.limits import EXEC_KEYS_MAX, MIB
from fastnet.security.mac import KEY_ID

SECRET_BYTES = 32
"""Length of a new secret, and the least of an old one: the output of SHA-256 (RFC 2104,
section 3).
"""

FILE_BYTES_MAX = MIB

KEYS_FILE = "~/.config/fastnet/exec.keys"


def hint(path: str) -> str:
    """How to have a key there."""
    folder = os.path.dirname(path)
    first = f"mkdir -p {folder}; " if folder and not os.path.isdir(folder) else ""
    return f"Make one: (umask 077; {first}fastnet exec key NAME >> {path})"


def new_line(key_id: str) -> str:
    """A line for the file, with a fresh secret. Raises ConfigError for an id that cannot be."""
    if not KEY_ID.fullmatch(key_id):
        raise ConfigError(
            f"{key_id!r} cannot be the id of a key", "1 to 32 letters, digits and _ . @ -"
        )
    return f"{key_id} {secrets.token_hex(SECRET_BYTES)}"


def read_keys(path: str) -> dict[str, bytes]:
    """The secrets by id, in the order of the file; at least one. Raises ConfigError."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(read_private(path, "keys", 0o077, hint(path)).splitlines(), 1):
        words = line.partition("#")[0].split()
        where = f"{path}: line {number}"
        if not words:
            continue
        if len(words) != 2 or not KEY_ID.fullmatch(words[0]):
            raise ConfigError(
                f"{where} is not an id and a secret", "Write ID, a space and 64 hexadecimal digits"
            )
        if words[0] in keys:
            raise ConfigError(
                f"{where}: {words[0]} is there a second time", "Give each key an id of its own"
            )
        keys[words[0]] = secret(words[1], where)
    if not keys:
        raise ConfigError(f"{path} holds no key, and without one no client is admitted", hint(path))
    if len(keys) > EXEC_KEYS_MAX:
        raise ConfigError(f"{path} holds {len(keys)} keys", f"At most {EXEC_KEYS_MAX}")
    return keys


def secret(text: str, where: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise ConfigError(
            f"{where}: the secret is not hexadecimal", "Make one with fastnet exec key NAME"
        ) from None
    if len(found) < SECRET_BYTES:
        least = f"At least {SECRET_BYTES} bytes, {2 * SECRET_BYTES} digits"
        hint = f"{least}; make one with fastnet exec key NAME"
        raise ConfigError(f"{where}: the secret has {len(found)} bytes", hint)
    return found


def read_private(path: str, what: str, forbidden: int, missing: str) -> str:
    """Read a UTF-8 file that other users cannot access.

    Args:
        path: The file.
        what: What it holds, for messages.
        forbidden: Mode bits that must not be set.
        missing: Hint when there is no such file.
    Raises:
        ConfigError: the file cannot be read, or other users can access it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            check_private(path, what, found, forbidden)
            if found.st_size > FILE_BYTES_MAX:
                raise ConfigError(f"{path} has {found.st_size} bytes", f"At most {FILE_BYTES_MAX}")
            return file.read(FILE_BYTES_MAX).decode("utf-8")
    except OSError as error:
        hint = (
            missing
            if isinstance(error, FileNotFoundError)
            else "Name a file that this user may read"
        )
        raise ConfigError(f"cannot read the {what} {path}: {reason(error)}", hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{printable(path)}: not UTF-8 at byte {error.start}", "Write it as UTF-8 text"
        ) from error


def check_private(path: str, what: str, found: os.stat_result, forbidden: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"the {what} {path} are not in a regular file", "Name a file")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{path} belongs to user {found.st_uid}, who could change it",
            f"chown {os.geteuid()} {path}",
        )
    if found.st_mode & forbidden:
        verb = "read or change" if forbidden & 0o004 else "change"
        hint = f"chmod {'go=' if forbidden & 0o004 else 'go-w'} {path}"
        raise ConfigError(
            f"others may {verb} {path} (mode {stat.S_IMODE(found.st_mode):04o})", hint
        )

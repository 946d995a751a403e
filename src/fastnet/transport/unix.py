"""Unix stream listeners, and the paths of Unix sockets of both kinds (unix(7)).

Facts. Closing a listener leaves its socket file, and binding to an existing path fails even when no
process listens there any more. Connecting to such a stale file is refused immediately, connecting
to a live socket of the other kind fails with another error. Abstract names (unix:@name) vanish with
the socket. A stream socket that is bound and does not listen yet looks like a stale one.
Decision: on EADDRINUSE we connect to find out; a stale socket file is replaced, a live one or any
other file is left alone. Servers that start at the same time serialize on a lock of the directory
(flock(2)), from before they bind until they listen: one gets the path, the others report that it is
in use. When a listener is released the file is removed only if it is still the same one, by device
and inode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError, reason
from fastnet.limits import SOCKET_FILE_LOOK_S, SOCKET_FILE_TURN_S
from fastnet.transport.contract import Listener, SocketOptions
from fastnet.transport.options import set_buffers
from fastnet.transport.resolve import unix_address

HINTS = {
    errno.EADDRINUSE: "A server has it already; stop it or choose another path",
    errno.EACCES: "You may not create files in that folder",
    errno.ENOENT: "Its folder does not exist",
    errno.ENOTDIR: "Its folder is not a folder",
    errno.EAGAIN: "Another program keeps that folder locked (flock); "
    "stop it or choose another folder",
    errno.EEXIST: "That file is not a socket; choose another path",
}


def listen(endpoint: Endpoint, options: SocketOptions) -> Listener:
    """Listen at the path; a stale socket file there is replaced."""
    return bound_unix_socket(socket.SOCK_STREAM, endpoint, options)


def bound_unix_socket(
    kind: socket.SocketKind, endpoint: Endpoint, options: SocketOptions
) -> Listener:
    """Bind a socket to the path; a stream socket listens. Raises NetworkError."""
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        set_buffers(sock, options)
        try:
            with directory_lock(endpoint.path):
                identity = bind(sock, endpoint.path)
                if kind == socket.SOCK_STREAM:
                    sock.listen(options.backlog)
        except OSError as error:
            hint = HINTS.get(error.errno or 0, "")
            raise NetworkError(
                f"cannot listen on {endpoint}: {reason(error)}", hint, error.errno
            ) from error
    except BaseException:
        sock.close()
        raise
    return Listener(sock, endpoint, identity)


@contextmanager
def directory_lock(path: str) -> Iterator[None]:
    """Hold the lock of a socket file's directory.

    Raises BlockingIOError when another process keeps it for SOCKET_FILE_TURN_S.
    """
    if path.startswith("@"):
        yield
        return
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # the directory may be writable and not readable
        yield
        return
    try:
        lock(folder)
        yield
    finally:
        with suppress(OSError):
            # closing does not unlock if a child inherited the descriptor
            fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def lock(folder: int) -> None:
    """Take the lock of an open directory, polling for it until SOCKET_FILE_TURN_S is over."""
    ends_s = time.monotonic() + SOCKET_FILE_TURN_S
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(SOCKET_FILE_LOOK_S)
        except OSError:  # the file system has no locks for directories
            return None


def bind(sock: socket.socket, path: str) -> tuple[int, int] | None:
    """Bind the socket. Returns device and inode of the socket file, None for an abstract name."""
    try:
        sock.bind(unix_address(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or path.startswith("@"):
            raise
        remove_stale(path, sock.type)
        sock.bind(path)
    if path.startswith("@"):
        return None
    found = os.stat(path)
    return found.st_dev, found.st_ino


def remove_stale(path: str, kind: int) -> None:
    """Remove a socket file that no process has open. Raises OSError for any other file."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
        refused = probe.connect_ex(path) == errno.ECONNREFUSED
    if not refused:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)

"""Unix stream listeners, and the paths of Unix sockets of both kinds (unix(7)).

Facts. Closing a listener leaves its socket file, and binding to a path that exists fails even when
nobody listens there any more. Connecting to such a stale file is refused at once, to a live socket
of the other kind with another error. Abstract names (unix:@name) vanish with the socket. A stream
socket that is bound and does not listen yet looks as stale.
Decision: on a clash connect to find out; a stale socket file is replaced, a live one or any other
file is left alone. Servers that start at once take turns, by a lock on the folder (flock(2)), from
before they bind until they listen: one gets the path, the others hear that it is in use. On the way
out the file is removed only if it is still ours, by device and inode.
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
from fastnet.transport.contract import SocketOptions
from fastnet.transport.options import set_buffers

HINTS = {
    errno.EADDRINUSE: "A server has it already; stop it or choose another path",
    errno.EACCES: "You may not create files in that folder",
    errno.ENOENT: "Its folder does not exist",
    errno.ENOTDIR: "Its folder is not a folder",
    errno.EAGAIN: "Another program keeps that folder locked (flock); stop it or choose another folder",
    errno.EEXIST: "That file is not a socket; choose another path",
}

_bound: dict[int, tuple[int, int]] = {}
"""Device and inode of the socket file behind each bound descriptor."""


def listen(endpoint: Endpoint, options: SocketOptions) -> socket.socket:
    """A listening socket at the path; a stale socket file there is replaced."""
    return bound(endpoint, options, socket.SOCK_STREAM)


def bound(endpoint: Endpoint, options: SocketOptions, kind: socket.SocketKind) -> socket.socket:
    """A socket of either kind at the path; one of connections listens."""
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        set_buffers(sock, options)
        try:
            with turn(endpoint.path):
                bind(sock, endpoint.path)
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
    return sock


@contextmanager
def turn(path: str) -> Iterator[None]:
    """Hold the lock of the folder that a socket file is in. Raises BlockingIOError when somebody
    does not let go of it.
    """
    if path.startswith("@"):
        yield
        return
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # one may be allowed to write in a folder and not to read it
        yield
        return
    try:
        lock(folder)
        yield
    finally:
        with suppress(OSError):
            # closing would not do if a process was forked meanwhile
            fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def lock(folder: int) -> None:
    ends_s = time.monotonic() + SOCKET_FILE_TURN_S
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(SOCKET_FILE_LOOK_S)
        except OSError:  # a file system that has no locks for folders
            return None


def address(path: str) -> str:
    """The path as the kernel wants it: an abstract name starts with NUL."""
    return "\0" + path[1:] if path.startswith("@") else path


def bind(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(address(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or path.startswith("@"):
            raise
        remove_stale(path, sock.type)
        sock.bind(path)
    if not path.startswith("@"):
        found = os.stat(path)
        _bound[sock.fileno()] = (found.st_dev, found.st_ino)


def remove_stale(path: str, kind: int) -> None:
    """Remove a socket file that nobody has open. Raises OSError for anything else."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
        refused = probe.connect_ex(path) == errno.ECONNREFUSED
    if not refused:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def name(listener: socket.socket, endpoint: Endpoint) -> Endpoint:
    """The endpoint as bound."""
    return endpoint


def release(listener: socket.socket, endpoint: Endpoint) -> None:
    """Remove the socket file if it is still the one that was bound."""
    ours = _bound.pop(listener.fileno(), None)
    if ours is None:
        return
    try:
        found = os.lstat(endpoint.path)
        if (found.st_dev, found.st_ino) == ours:
            os.unlink(endpoint.path)
    except OSError:
        return

"""The root folder of a receiver: descriptor-relative access, safe from path traversal.

Facts. A path is looked up anew by every system call, so a check of a path says nothing about the
next call with it: another process may have put a link where a folder was. A descriptor of a folder
stays that folder. O_NOFOLLOW looks at the last component only (open(2)); openat2(2) could refuse
links in all of them, but Python has no call for it, and Linux none before 5.6.
Decision: a folder is walked to one component at a time, each opened below the descriptor of the one
before, O_NOFOLLOW and O_DIRECTORY; whatever is done with a file is one system call with that
descriptor and a name without a slash.
Cost: a system call for each component, once: descriptors are kept, so a file in a folder seen
before is one look-up and one call. What it cannot prevent: who moves a folder of the tree elsewhere
while it is open takes along what is put into it; `forget`, before each transfer, keeps that short.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

from fastnet.apps.transfer.target.write_errors import NO_HARD_LINKS
from fastnet.limits import OPEN_FOLDERS_MAX

P = ParamSpec("P")
T = TypeVar("T")
Parts = tuple[str, ...]
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK is for a FIFO that replaced a file; it has no effect on a regular file."""

PERMISSIONS = 0o777


class Outside(OSError):
    """A component of a path is a link or no folder.

    path: of that component, below the root.
    """

    def __init__(self, number: int, parts: Parts) -> None:
        super().__init__(number, os.strerror(number), "/".join(parts))
        self.path = "/".join(parts)


def locked(method: Callable[Concatenate[Root, P], T]) -> Callable[Concatenate[Root, P], T]:
    """One thread at a time.

    What one thread walks to may close what another one is about to use.
    """

    @functools.wraps(method)
    def held(self: Root, /, *args: P.args, **named: P.kwargs) -> T:
        with self._lock:
            return method(self, *args, **named)

    return held


class Root:
    """An open folder and what is below it.

    `parts` are components as names.parts_of gives them.

    For any number of threads, but the descriptor that `folder` returns is only for one that has the
    root for itself. Raises OSError like the calls it is named after, and Outside.
    """

    def __init__(self, path: str) -> None:
        """Open the folder; make it when only it is missing.

        That `path` leads through links is its owner's wish.
        """
        self.path = path
        self._lock = threading.RLock()
        try:
            self.fd = os.open(path, FOLDER)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(path)
            self.fd = os.open(path, FOLDER)
        self._folders: OrderedDict[Parts, int] = OrderedDict()

    @locked
    def folder(self, parts: Parts, make: bool = False) -> int:
        """The descriptor of a folder, valid until the next call.

        make: create what is missing on the way, and the folder itself.
        """
        if not parts:
            return self.fd
        fd = self._folders.get(parts)
        if fd is not None:
            self._folders.move_to_end(parts)
            return fd
        name = plain(parts)
        above = self.folder(parts[:-1], make)
        try:
            fd = open_below(above, parts, FOLDER | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, PERMISSIONS, dir_fd=above)
            fd = open_below(above, parts, FOLDER | os.O_NOFOLLOW)
        self._keep(parts, fd)
        return fd

    def _keep(self, parts: Parts, fd: int) -> None:
        self._folders[parts] = fd
        if len(self._folders) > OPEN_FOLDERS_MAX:
            os.close(self._folders.popitem(last=False)[1])

    @locked
    def hold(self, parts: Parts) -> int:
        """A descriptor of a folder, which the caller closes."""
        return os.dup(self.folder(parts))

    @locked
    def open(self, parts: Parts, flags: int, mode: int = 0o600) -> int:
        """open(2), never through a link, and without waiting for the other end of a FIFO."""
        plain(parts)
        return open_below(self.folder(parts[:-1]), parts, flags | ALWAYS, mode)

    @locked
    def lstat(self, parts: Parts) -> os.stat_result | None:
        """lstat(2), or None for what is absent, be it for want of a folder above."""
        name = plain(parts)
        try:
            return os.stat(name, dir_fd=self.folder(parts[:-1]), follow_symlinks=False)
        except FileNotFoundError:
            return None

    @locked
    def rename(self, from_parts: Parts, to_parts: Parts, replace: bool) -> None:
        """Give a file another name.

        Without `replace` a name that is taken raises FileExistsError, whenever it was taken.
        """
        source, target = plain(from_parts), plain(to_parts)
        above, below = self.folder(from_parts[:-1]), None
        try:
            if from_parts[:-1] != to_parts[:-1]:
                # the walk to the other folder may close the one of this
                above = below = os.dup(above)
            to = self.folder(to_parts[:-1])
            if replace:
                os.rename(source, target, src_dir_fd=above, dst_dir_fd=to)
            else:
                link(source, target, above, to)
        finally:
            if below is not None:
                os.close(below)

    @locked
    def unlink(self, parts: Parts) -> None:
        """unlink(2): a link is removed, not what it leads to."""
        name = plain(parts)
        os.unlink(name, dir_fd=self.folder(parts[:-1]))

    @locked
    def symlink(self, target: str, parts: Parts) -> None:
        """symlink(2). Whether the target is harmless is for names.check_link to say."""
        name = plain(parts)
        os.symlink(target, name, dir_fd=self.folder(parts[:-1]))

    @locked
    def readlink(self, parts: Parts) -> str:
        """readlink(2): where a link leads, not followed."""
        name = plain(parts)
        return os.readlink(name, dir_fd=self.folder(parts[:-1]))

    @locked
    def set_folder(self, parts: Parts, mode: int, mtime_ns: int, is_ours: bool = True) -> None:
        """Permissions and time of a folder below the root.

        Its set-id and sticky bits are the host's and stay.

        is_ours: we made it. Otherwise no permission is added for group and others, and none is
        taken from its owner.
        """
        plain(parts)
        fd = self.folder(parts)
        now = os.fstat(fd).st_mode
        if not is_ours:
            mode = mode & now | now & stat.S_IRWXU
        os.fchmod(fd, mode & PERMISSIONS | now & ~PERMISSIONS & 0o7777)
        os.utime(fd, ns=times(mtime_ns))

    @locked
    def set_link_time(self, parts: Parts, mtime_ns: int) -> None:
        """Time of a link itself."""
        name = plain(parts)
        os.utime(name, ns=times(mtime_ns), dir_fd=self.folder(parts[:-1]), follow_symlinks=False)

    def free_bytes(self) -> int:
        """What an ordinary user may still write to this file system."""
        found = os.fstatvfs(self.fd)
        return found.f_bavail * found.f_frsize

    def sync(self, parts: Parts) -> None:
        """fsync(2) a folder, outside the lock of the other methods."""
        fd = self.hold(parts)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @locked
    def forget(self) -> None:
        """Walk anew to every folder: what was moved or removed since is another one now."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    @locked
    def close(self) -> None:
        self.forget()
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def plain(parts: Parts) -> str:
    """The last component.

    Raises Outside for what is no step down, also if checked before.
    """
    name = parts[-1] if parts else ""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Outside(errno.ELOOP, parts)
    return name


def open_below(above: int, parts: Parts, flags: int, mode: int = 0) -> int:
    """Open the last component in the folder `above`.

    Raises Outside for a link, and for a file where a folder should be.
    """
    try:
        return os.open(parts[-1], flags, mode, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Outside(error.errno, parts) from error
        raise


def link(source: str, target: str, above: int, to: int) -> None:
    """rename(2) that never replaces."""
    try:
        os.link(source, target, src_dir_fd=above, dst_dir_fd=to, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        # A file system without hard links; what is lost is only the race with another writer of the
        # same name.
        with suppress(FileNotFoundError):
            os.stat(target, dir_fd=to, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
        os.rename(source, target, src_dir_fd=above, dst_dir_fd=to)
    else:
        os.unlink(source, dir_fd=above)


def times(mtime_ns: int) -> tuple[int, int]:
    """Access and modification time for os.utime.

    Raises OSError for what no file system keeps.
    """
    if not -(2**63) <= mtime_ns < 2**63:
        raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
    return mtime_ns, mtime_ns

"""Probes: kernel features, found out by using them.

A version number tells what a kernel may support; a container's filter, a sysctl or a build option
decides what it does. Each probe raises an error if the feature does not work, and closes what it
opens.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from importlib import import_module

from fastnet.errors import UnsupportedError, reason

SYS_IO_URING_SETUP = 425
"""The same on all architectures but Alpha."""

IO_URING_PARAMS_BYTES = 120


def epoll() -> None:
    select.epoll().close()


def eventfd() -> None:
    os.close(os.eventfd(0, os.EFD_CLOEXEC))


def pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def io_uring() -> None:
    """Receive through a ring as the uring engine does; without that extension, set up a ring."""
    try:
        probe = import_module("fastnet.engine.stream.uring_c").probe
    except ImportError:
        probe = set_up_ring
    try:
        probe()
    except PermissionError as error:
        cause = (
            "io_uring is blocked here: by seccomp, as in most containers, "
            "or by sysctl kernel.io_uring_disabled"
        )
        raise UnsupportedError(cause) from error
    except OSError as error:
        raise UnsupportedError(
            f"this kernel's io_uring is missing or too old: {reason(error)}"
        ) from error


def set_up_ring() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(IO_URING_PARAMS_BYTES))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.close(fd)


def sendfile() -> None:
    left, right = socket.socketpair()
    with left, right, open(__file__, "rb") as file:
        if os.sendfile(left.fileno(), file.fileno(), 0, 1) != 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def splice() -> None:
    left, right = socket.socketpair()
    out, into = os.pipe()
    try:
        with left, right:
            left.send(b".")
            if os.splice(right.fileno(), into, 1) != 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
    finally:
        os.close(out)
        os.close(into)


def reuse_port() -> None:
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())


def ipv6() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))


def dual_stack() -> None:
    """An IPv6 listener to which an IPv4 peer can connect."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        listener.listen(1)
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=1).close()


def abstract() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0fastnet-doctor-{os.getpid()}")


def kernel_tls() -> None:
    if cause := import_module("fastnet.transport.tls").kernel_tls():
        raise UnsupportedError(cause)


FEATURES: dict[str, tuple[Callable[[], None], str]] = {
    "epoll": (
        epoll,
        "the epoll engine is absent; select serves up to about a thousand connections",
    ),
    "eventfd": (eventfd, "servers cannot be stopped; fastnet needs it"),
    "pidfd": (
        pidfd,
        "the fork engine and pure-Python workers are absent; they need Linux 5.3",
    ),
    "io_uring": (
        io_uring,
        "`auto` takes epoll instead",
    ),
    "sendfile": (sendfile, "files are copied through user space"),
    "splice": (splice, "files are received through user space"),
    "SO_REUSEPORT": (reuse_port, "--workers above 1 is not available on TCP"),
    "IPv6": (ipv6, "only IPv4 addresses can be served"),
    "dual stack": (dual_stack, "serving every address means every IPv4 address"),
    "kernel TLS": (kernel_tls, "`send --tls` encrypts in this process instead of the kernel"),
    "abstract sockets": (abstract, "unix:@NAME is not available; unix:PATH is"),
}
"""By name: the probe, and the consequence of its failure."""


def why_not(probe: Callable[[], None]) -> str:
    """Run a probe. Returns "" if it works, else the reason, with the name of the errno."""
    try:
        probe()
    except UnsupportedError as error:
        return error.message
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        return f"{reason(error)} ({name})" if name else reason(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

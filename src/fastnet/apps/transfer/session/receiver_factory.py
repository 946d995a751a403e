"""Makes the Receiver of each connection of `receive` and `serve_inbox`."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from fastnet.apps.transfer import compression
from fastnet.apps.transfer.digest import ALGORITHMS, Algorithm
from fastnet.apps.transfer.events import ErrorCode, OnEvent
from fastnet.apps.transfer.options import ReceivePolicy, TransferOptions
from fastnet.apps.transfer.protocol.handshake import Hello
from fastnet.apps.transfer.session.manager import SessionContext
from fastnet.apps.transfer.session.receiver import Receiver
from fastnet.apps.transfer.session.session import SessionParameters
from fastnet.apps.transfer.target.placement import OVERWRITE, Placement
from fastnet.apps.transfer.target.root import Root
from fastnet.apps.transfer.target.writers import patient
from fastnet.errors import ConfigError, TransferError, TransferRefused, reason
from fastnet.limits import STREAMS_MAX

STDOUT = 1
STDOUT_PATH = "-"


class ReceiverFactory:
    """Call it with an authenticated connection for its Receiver.

    Close it to release the target.
    """

    def __init__(
        self,
        options: TransferOptions,
        on_event: OnEvent,
        *,
        into: str | None,
        output: str | None,
        overwrite: str,
        policy: ReceivePolicy | None,
    ) -> None:
        if overwrite not in OVERWRITE:
            raise ConfigError(f"overwrite is {overwrite!r}", f"It is one of {', '.join(OVERWRITE)}")
        if into is not None and output is not None:
            raise ConfigError(
                "both into and output are given", "A folder for any files, or a name for one file"
            )
        self.options = options
        self.on_event = on_event
        self._policy = policy or ReceivePolicy()
        self._stack = ExitStack()
        try:
            self._inbox, self._out_fd = open_placement(self._stack, into, output, overwrite)
        except BaseException:
            self._stack.close()
            raise

    def hello(self) -> Hello:
        """This side's handshake."""
        return Hello(
            "recv",
            self.options.token,
            dry_run=self.options.dry_run,
            compress="" if compression.why_not() else compression.NAME,
            streams=1 if self._inbox.root is None else STREAMS_MAX,
        )

    def __call__(self, context: SessionContext) -> Receiver:
        if context.peer.digest not in ALGORITHMS:
            raise TransferRefused(
                f"the sender takes digests with {context.peer.digest!a}, which is not known here",
                f"Known are {', '.join(ALGORITHMS)}",
                ErrorCode.REFUSED,
            )
        return Receiver(
            SessionParameters(
                connection=context.connection,
                algorithm=Algorithm(context.peer.digest),
                options=self.options,
                on_event=self.on_event,
                number=context.number,
                should_stop=context.should_stop,
                congestion=context.congestion,
            ),
            inbox=self._inbox,
            policy=self._policy,
            out_fd=self._out_fd,
        )

    def __enter__(self) -> ReceiverFactory:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the target; remove its folder if it was created for this and is empty."""
        self._stack.close()


def open_placement(
    stack: ExitStack, into: str | None, output: str | None, overwrite: str
) -> tuple[Placement, int]:
    """The target, and the descriptor to write to when it is a stream; closed with `stack`."""
    path = output or ""
    if path == STDOUT_PATH:
        return Placement(None, overwrite), patient(stack, STDOUT)
    try:
        if path and os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # a FIFO, /dev/null
            stack.callback(os.close, fd)
            return Placement(None, overwrite), patient(stack, fd)
        folder, name = os.path.split(path) if path else (into or ".", "")
        if path and (not name or os.path.isdir(path)):
            raise TransferRefused(
                f"{path} is a folder", "Say --into for a folder", ErrorCode.TARGET
            )
        is_new = not os.path.lexists(folder or ".")
        root = stack.enter_context(Root(folder or "."))
        if is_new:
            stack.callback(remove_if_empty, folder)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a path"
        raise TransferError(
            f"cannot write {path or into or '.'}: {why}",
            "Check the path and its permissions",
            ErrorCode.TARGET,
        ) from error
    return Placement(root, overwrite, name or None), STDOUT


def remove_if_empty(folder: str) -> None:
    """Remove the folder that was created for files of which none was received."""
    with suppress(OSError):
        os.rmdir(folder)

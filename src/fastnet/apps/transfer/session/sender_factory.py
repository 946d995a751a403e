"""Makes the Sender of each connection of `send` and `serve_files`.

Decision: the source tree is surveyed before the first connection, so that a path that cannot be
sent fails early; `serve_files` surveys it again for each receiver, because it may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnet.apps.transfer import compression
from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.events import OnEvent, TransferEvent
from fastnet.apps.transfer.options import TransferOptions
from fastnet.apps.transfer.protocol.entry import Entry
from fastnet.apps.transfer.protocol.handshake import Hello
from fastnet.apps.transfer.session.manager import SessionContext
from fastnet.apps.transfer.session.sender import Sender
from fastnet.apps.transfer.session.session import SessionParameters
from fastnet.apps.transfer.source.walk import Filter, walk
from fastnet.errors import UnsupportedError
from fastnet.ratelimit import ByteRateLimiter


class SenderFactory:
    """Call it with an authenticated connection for its Sender."""

    def __init__(
        self,
        paths: Sequence[str],
        options: TransferOptions,
        on_event: OnEvent,
        *,
        file_filter: Filter | None,
        limit_rate_bytes_s: float | None,
        keep_open: bool,
    ) -> None:
        self._paths = paths
        self.options = options
        self.on_event = on_event
        self._filter = file_filter or Filter()
        self._limit_rate_bytes_s = limit_rate_bytes_s
        self._keep_open = keep_open
        self._surveyed = self._survey()
        if options.compress:
            compression.check()

    def hello(self) -> Hello:
        """This side's handshake."""
        options = self.options
        return Hello(
            "send",
            options.token,
            digest=options.digest,
            dry_run=options.dry_run,
            compress=options.compress,
            streams=options.streams,
        )

    def __call__(self, context: SessionContext) -> Sender:
        options = self.options
        if options.compress and options.compress != context.peer.compress:
            raise UnsupportedError(
                "the receiver cannot undo zstd: it lacks the package zstandard",
                "Install it there (pip install 'fastnet-io[zstd]'), or leave --compress out",
            )
        entries, places = self._survey() if self._keep_open else self._surveyed
        return Sender(
            SessionParameters(
                connection=context.connection,
                algorithm=Algorithm(options.digest),
                options=options,
                on_event=self.on_event,
                number=context.number,
                should_stop=context.should_stop,
                congestion=context.congestion,
            ),
            entries=entries,
            source_paths=places,
            rate_limiter=ByteRateLimiter(self._limit_rate_bytes_s),
            compressor=compression.Compressor() if options.compress else None,
        )

    def _survey(self) -> tuple[list[Entry], list[str]]:
        return walk(self._paths, self._filter, self._report_skipped, self.options.backend)

    def _report_skipped(self, path: str, why: str) -> None:
        self.on_event(TransferEvent("message", text=f"{path} is left out: {why}"))

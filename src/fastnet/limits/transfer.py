"""Bounds of file transfers, and of the movers."""

from __future__ import annotations

from fastnet.limits.server import TICK_S
from fastnet.limits.units import KIB, MIB

MOVER_STEP_BYTES = 2 * MIB
"""Most that one step of a mover asks the kernel to move, so that no peer and no cold disk holds a
thread for long.
"""

MOVER_BUFFER_BYTES = 256 * KIB
"""Buffer of the copy mover. It goes through the cache twice, once each way, so it must stay
in L2.
"""

MOVER_PIPE_BYTES = MIB
"""Pipe of the splice mover: 256 slots, one for each fragment of a packet; what the kernel allows
without privilege.
"""

MOVER_WAKE_BYTES = 256 * KIB
"""SO_RCVLOWAT of a mover that receives into a file: it is woken for this much, not for each
packet, and reads what is less at the end of its slice.
"""

MOVER_SLICE_S = TICK_S
"""A mover comes back to Python this often, for signals, progress and time-outs."""

TRANSFER_STALL_S = 60.0
"""A transfer without progress for this long has failed."""

TRANSFER_CLIENTS_MAX = 64
"""Clients that `send --keep-open` serves at the same time; more wait in the accept queue."""

PENDING_HANDSHAKES_MAX = 64
"""Connections whose handshake is not complete, or, in raw mode, that have not sent yet. Above this
number the oldest is closed.
"""

PENDING_HANDSHAKES_FD_DIVISOR = 8
"""They use no more than this part, an eighth, of RLIMIT_NOFILE."""

RETRY_PAUSE_S = 0.1
"""Rest between two attempts to reach a listener that is not up yet."""

EXTENT_BYTES = 8 * MIB
"""A file travels in extents of this size, each with its own digest: what a resumed transfer loses
at most.
"""

EXTENTS_MAX = 8192
"""Extents of one file; a larger file has larger ones, so that what is known of it stays small."""

EXTENT_BYTES_MAX = 1024 * MIB
"""The largest extent: files up to 8 TiB."""

DIGEST_BUFFER_BYTES = 256 * KIB
"""A digest reads the page cache through a buffer that stays in L2."""

COMPRESSED_EXTENT_BYTES = MIB
"""With --compress an extent is held in memory, on both sides."""

PACKED_FILE_BYTES = 128 * KIB
"""Files up to this size travel many to a frame, each whole."""

PACK_BYTES = MIB
"""A pack is sent when it holds this much."""

PACK_FILES = 1024
"""Or this many files."""

PACK_BYTES_MAX = 2 * MIB
"""The largest pack that a receiver takes: a full one and one more file, with its table."""

HELLO_BYTES_MAX = 4 * KIB
"""The first frame of an unauthenticated peer."""

MAGIC_PAUSE_S = 0.01
"""Pause before a raw receiver peeks again at bytes that may become the magic of fastnet/1."""

HELLO_S = 5.0
"""Deadline of the handshake; a connection without one by then is closed."""

CONTROL_BYTES_MAX = MIB
"""Any other control frame; a manifest has as many as it needs."""

PLAN_BYTES_MAX = 16 * MIB
"""What a receiver already has: the numbers of a million files, and the extents of a dozen
unfinished
ones. JSON may be twenty times as large in memory."""

MANIFEST_BYTES_MAX = 256 * MIB
"""All parts of a manifest together: a million entries of 256 bytes. In memory they may be four
times that.
"""

MANIFEST_BYTES_S_MIN = 4 * KIB
"""A manifest that comes more slowly than that, after TRANSFER_STALL_S, is not waited for."""

MANIFEST_FILES_MAX = 1_000_000
"""Files, folders and links that one transfer may bring, unless told otherwise."""

HEARTBEAT_S = 1.0
"""A side that works without sending says so this often; TRANSFER_STALL_S without a word means that
it is gone.
"""

STREAMS_MAX = 16
"""Connections of one transfer: what `--streams` may ask for, and what a listener lets join."""

FILE_EXTENTS_MAX = 1 << 20
"""Extents of one file, also of a sparse one, that are kept in mind: 32 bytes each, and some more
when its digest is taken.
"""

UNVERIFIED_EXTENTS_MAX = 4
"""Extents that a receiver has written and not yet verified, before it takes no more."""

PACE_S = 0.25
"""Burst of `--limit-rate`: the time without sending that it may catch up on."""
PACE_STEP_S = 0.01
"""Smallest burst of `--limit-rate`: shorter steps waste CPU, longer ones are bursty."""

REASON_CHARACTERS = 1000
"""What is kept of a sentence that the other side says."""

FAREWELL_S = 2.0
"""How long a failed side waits for the peer to receive its ERROR."""

FINAL_MESSAGE_BYTES = 4 * KIB
"""What is kept of a raw receiver's final message."""

FINAL_MESSAGE_BYTES_MAX = 64 * KIB
"""A longer final message of a raw receiver ends the transfer as unconfirmed."""

NAME_BYTES_MAX = 255
"""Longest name of a file: NAME_MAX of every common Linux file system."""

PATH_BYTES_MAX = 4096
"""Longest path below a root, and longest target of a symbolic link: PATH_MAX."""

DEPTH_MAX = 64
"""Folders within folders that a sender may name; deeper trees are an attack or a mistake."""

NUMBERED_SUFFIX_BYTES_MAX = 32
"""What follows a dot is a suffix, kept when a name is numbered, up to this length."""

OPEN_FOLDERS_MAX = 128
"""Folders below a root that are kept open, so that not every file is a walk: an eighth of the usual
descriptor limit.
"""

TOKEN_BYTES_MIN = 16
"""Shortest token: 128 bits, if they are random."""

TOKEN_BYTES_MAX = 4 * KIB
"""Longest token; a longer file is the wrong file."""

CERTIFICATE_DAYS = 3650
"""Validity of a certificate that we make for ourselves. It is known by its fingerprint, so its
expiry protects no one.
"""

OPENSSL_S = 30.0
"""How long the openssl command may take to make one."""

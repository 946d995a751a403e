"""What is in a folder. The contract is contract.py."""

from __future__ import annotations

import os

from fastnet.apps.transfer.smallfiles.contract import Found
from fastnet.apps.transfer.source.identity import BLOCK_BYTES, identity


def survey(folder: str) -> list[Found]:
    """Everything in the folder at this path, by name. Raises OSError."""
    found = []
    with os.scandir(folder) as scan:
        for child in scan:
            status = child.stat(follow_symlinks=False)
            data_bytes = min(status.st_size, status.st_blocks * BLOCK_BYTES)
            found.append(
                Found(
                    child.name,
                    status.st_mode,
                    status.st_mtime_ns,
                    status.st_size,
                    identity(status),
                    data_bytes,
                )
            )
    found.sort()
    return found

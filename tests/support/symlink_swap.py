"""A local process that is up to something.

A folder that is a link to another one every other moment.

`python -m tests.support.symlink_swap ONE OTHER` exchanges two names until it is killed, with
renameat2(2), so that both are always there. A process of its own, because threads of one
interpreter take turns, and then some moments never come.
"""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2
PAUSE_STEPS_MAX = 100
"""Without pauses of random length, a few microseconds each, it falls into step with the system
calls it races.
"""


def exchange_for_ever(one: bytes, other: bytes) -> None:
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    print("exchanging", flush=True)
    while True:
        if renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for _ in range(random.randrange(PAUSE_STEPS_MAX)):
            pass


class Swapping:
    """Exchange `folder` and a link to `other` while the block lasts.

    At its end the folder is where it was.
    """

    def __init__(self, folder: Path, other: Path) -> None:
        self.folder, self.link = folder, folder.with_suffix(".link")
        self.link.symlink_to(other)

    def __enter__(self) -> Swapping:
        command = [sys.executable, "-m", "tests.support.symlink_swap", self.folder, self.link]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.poll() is None, "it gave up"
        self.process.kill()
        with self.process:
            self.process.wait()
        if self.folder.is_symlink():
            aside = self.folder.with_suffix(".aside")
            self.folder.rename(aside)
            self.link.rename(self.folder)
            aside.rename(self.link)


if __name__ == "__main__":
    exchange_for_ever(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]))

"""One engine run by hand, without a Server.

For tests of several listeners, bounds or services.
"""

from __future__ import annotations

from fastnet.testing.loop import prepared_loop as prepared
from fastnet.testing.loop import running_loop as running

__all__ = ["prepared", "running"]

"""Small files, many at a time: one row a step.

Facts. A file of 4 KiB is moved in a microsecond; opening, checking, making and naming it takes ten,
and as many steps of an interpreter as much again.
Decision: what is done with a small file between its folder and a pack is one function for all files
of the pack, native where it can be. It does what goes well and stops before the first file with
which something is wrong; what is wrong, and whether it can be helped, is found out by the caller,
one file at a time.
"""

from __future__ import annotations

from types import ModuleType

from fastnet.errors import UnsupportedError
from fastnet.registry import BACKENDS, Registry, Row

SMALL: Registry[Row] = Registry(
    __name__,
    {
        "survey": Row("what is in a folder", "survey_py", "survey_c"),
        "gather": Row("small files into a pack", "gather_py", "gather_c"),
        "scatter": Row("a pack into files under their names", "scatter_py", "scatter_c"),
    },
)


def choose(name: str, backend: str = "auto") -> tuple[ModuleType, str]:
    """The module of a row, and its backend.

    Raises UnsupportedError for a backend asked for by name and absent.
    """
    missing = ""
    for candidate in BACKENDS if backend == "auto" else (backend,):
        missing = SMALL.why_not(name, candidate)
        if not missing:
            return SMALL.load(name, candidate), candidate
    raise UnsupportedError(f"no {backend} {name}: {missing}", "Leave --backend out")

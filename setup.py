"""Which extensions to build; everything else about the package is in pyproject.toml.

Facts. Every `*_c.pyx` below src/fastnet is one small extension, and each has a pure-Python twin or
a fallback.
Consequence: a missing compiler or header may cost speed, but must never cost the installation.
Decision: each extension is optional; why one is missing is written to fastnet/_native_build.json,
which `fastnet doctor` shows. FASTNET_NO_NATIVE=1 builds none. FASTNET_SANITIZE=1 builds with
AddressSanitizer and UBSan (`make sanitize`).
"""

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

SOURCE = Path("src")
FLAGS = ["-O2", "-g1", "-std=gnu11", "-Wall", "-Wno-unused-function", "-fvisibility=hidden"]
SANITIZE = [
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
]


def none_because() -> str:
    """Why no extension at all is to be built, or ""."""
    if os.environ.get("FASTNET_NO_NATIVE") == "1":
        return "installed with FASTNET_NO_NATIVE=1"
    return "" if find_spec("Cython") else "installed without Cython"


def extensions() -> list[Extension]:
    if none_because():
        return []
    from Cython.Build import cythonize

    sanitize = os.environ.get("FASTNET_SANITIZE") == "1"
    headers = [str(path) for path in sorted(Path("csrc").glob("*.h"))]
    found = [
        Extension(
            ".".join(path.relative_to(SOURCE).with_suffix("").parts),
            [str(path)],
            include_dirs=["csrc"],
            depends=headers,
            extra_compile_args=FLAGS + (SANITIZE if sanitize else []),
            extra_link_args=["-pthread", *(SANITIZE if sanitize else [])],
        )
        for path in sorted((SOURCE / "fastnet").rglob("*_c.pyx"))
    ]
    made = cythonize(
        found,
        build_dir="build/cython",
        include_path=[str(SOURCE)],
        compiler_directives={
            "language_level": 3,
            "freethreading_compatible": True,
            "boundscheck": False,
            "wraparound": False,
        },
    )
    for extension in made:
        extension.optional = True  # cythonize makes new objects and leaves this out
    return made


class build_ext_or_say_why(build_ext):
    """Build each extension or write down why it is missing."""

    def run(self) -> None:
        self.missing: dict[str, str] = {}
        super().run()
        write_note(SOURCE if self.inplace else Path(self.build_lib), self.missing)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            command = re.search(r"[Cc]ommand '?\['?([^']+)'", str(error))
            why = f"the compiler {command[1]} failed" if command else f"{error}".splitlines()[0]
            self.missing[ext.name] = why
            raise


class build_py_and_say_why(build_py):
    """With no extension to build, setuptools leaves build_ext out, and a note of an earlier build
    would be copied.
    """

    def run(self) -> None:
        super().run()
        if none := none_because():
            write_note(SOURCE if self.editable_mode else Path(self.build_lib), {"*": none})


def write_note(root: Path, reasons: dict[str, str]) -> None:
    note = root / "fastnet" / "_native_build.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)  # it may be a hard link to that of the source tree
    note.write_text(json.dumps(reasons, indent=1, sort_keys=True) + "\n")


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": build_ext_or_say_why, "build_py": build_py_and_say_why},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)

"""Which extensions to build; everything else about the package is in pyproject.toml.

Facts. Every `*_c.pyx` below src/fastnet is one small extension, and each has a pure-Python twin or a fallback.
Consequence: a missing compiler or header may cost speed, but must never cost the installation.
Decision: each extension is optional; why one is missing is written to fastnet/_native_build.json, which `fastnet doctor`
shows. FASTNET_NO_NATIVE=1 builds none. FASTNET_SANITIZE=1 builds with AddressSanitizer and UBSan (`make sanitize`).
"""

import json
import os
import re
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("src")
FLAGS = ["-O2", "-g1", "-std=gnu11", "-Wall", "-Wno-unused-function", "-fvisibility=hidden"]
SANITIZE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def extensions() -> list[Extension]:
    if os.environ.get("FASTNET_NO_NATIVE") == "1":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
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
        reason = self.missing
        if not self.extensions:
            reason = {"*": "installed with FASTNET_NO_NATIVE=1, or without Cython"}
        root = SOURCE if self.inplace else Path(self.build_lib)
        note = root / "fastnet" / "_native_build.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(reason, indent=1, sort_keys=True) + "\n")

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            command = re.search(r"[Cc]ommand '?\['?([^']+)'", str(error))
            why = f"the compiler {command[1]} failed" if command else f"{error}".splitlines()[0]
            self.missing[ext.name] = why
            raise


modules = extensions()
setup(
    # distutils skips the whole command when there is nothing to build, and the note would then be stale.
    ext_modules=modules,
    cmdclass={"build_ext": build_ext_or_say_why},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)

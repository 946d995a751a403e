"""Run the native tests under AddressSanitizer and UBSan: `make sanitize`.

The interpreter itself is not instrumented, so the sanitizer's runtime is preloaded, and leaks are
not looked for: CPython keeps memory for ever on purpose. What the extensions do to memory is
checked on every access.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/contract", "tests/parity", "tests/fault", "tests/unit"]


def copied(tree: Path) -> Path:
    """The sources alone, elsewhere.

    What is built of them with sanitizers must not be taken for the ordinary build.
    """
    shutil.rmtree(tree, ignore_errors=True)
    built = shutil.ignore_patterns("*.so", "*.c", "_native_build.json", "*.egg-info", "__pycache__")
    for folder in ("csrc", "src"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=built)
    for file in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    return tree


def main() -> int:
    home = ROOT / ".venvs" / "sanitize"
    python = str(home / "bin" / "python")
    build = os.environ | {"FASTNET_SANITIZE": "1"}
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
    tree = copied(home / "tree")
    subprocess.run([python, "-m", "pip", "install", "-q", f"{tree}[test]"], check=True, env=build)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", tree],
        check=True,
        env=build,
    )
    compiler = os.environ.get("CC", "cc")
    runtimes = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_segv=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
        "FASTNET_TEST_TIMEOUT_FACTOR": "4",
    }
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-m",
        "native and not soak",
        "--timeout",
        "300",
        *TESTS,
        *sys.argv[1:],
    ]
    return subprocess.run(command, check=False, env=environment, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Run the suite on every CPython from 3.11 up and once without extensions.

This is `make test-versions`.

Each runs against an installed wheel in an environment of its own, so what is tested is what a user
would get.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def interpreters() -> dict[str, str]:
    """Working CPythons by version ("3.12", "3.13t"), from PATH and from pyenv."""
    folders = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.*")):
            if re.fullmatch(r"python3\.\d+t?", path.name):
                version = ask(path)
                if version:
                    found.setdefault(version, str(path))
    return found


def ask(path: Path) -> str:
    """The version an interpreter gives, or "" if it does not run, is too old or is no CPython."""
    question = (
        "import sys, sysconfig; t = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''; "
        "print(sys.implementation.name, *sys.version_info[:2], t)"
    )
    answer = subprocess.run([path, "-c", question], capture_output=True, text=True, check=False)
    words = answer.stdout.split()
    if answer.returncode or words[0] != "cpython" or (int(words[1]), int(words[2])) < OLDEST:
        return ""
    return f"{words[1]}.{words[2]}{words[3] if len(words) > 3 else ''}"


def run(name: str, interpreter: str, environment: dict[str, str]) -> bool:
    """Install and test in .venvs/NAME. True if all passed."""
    print(f"== {name}: {interpreter}", flush=True)
    home = ROOT / ".venvs" / name
    python = str(home / "bin" / "python")
    everything = os.environ | environment
    if not Path(python).exists():
        subprocess.run([interpreter, "-m", "venv", home], check=True)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", f"{ROOT}[test]"], check=True, env=everything
    )
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", ROOT],
        check=True,
        env=everything,
    )
    tests = [
        python,
        "-m",
        "pytest",
        "-q",
        "-n",
        "4",
        "-m",
        "not soak",
        "-p",
        "no:cacheprovider",
        *sys.argv[1:],
    ]
    return subprocess.run(tests, check=False, env=everything, cwd=ROOT).returncode == 0


def main() -> int:
    found = interpreters()
    if not found:
        sys.exit("no CPython from 3.11 up on this machine")
    results = {version: run(version, path, {}) for version, path in found.items()}
    newest = max(found, key=lambda version: int(re.findall(r"\d+", version)[1]))
    results[f"{newest}-pure"] = run(f"{newest}-pure", found[newest], {"FASTNET_NO_NATIVE": "1"})
    for name, passed in results.items():
        print(f"{name:10} {'passed' if passed else 'FAILED'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

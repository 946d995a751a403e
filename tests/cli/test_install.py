"""Installation without a working compiler: it succeeds, and the lost speed is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("csrc", "src", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources and nothing that was ever built."""
    target = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-z", *SOURCES], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so what was built cannot be told from the sources")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
    return target


def installed(tree: Path, target: Path, **build: str) -> dict[str, str]:
    """Install the tree into a folder, with this environment for the build.

    Returns the environment to run it in.
    """
    for tool in ("setuptools", "Cython"):
        pytest.importorskip(tool, reason=f"{tool} is not installed here, so nothing can be built")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTNET_")}
    options = ["-q", "--no-build-isolation", "--no-deps", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, "."]
    done = subprocess.run(
        command,
        cwd=tree,
        env=clean | build,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return clean | {"PYTHONPATH": str(target)}


WITHOUT = {
    "a compiler": ({"CC": "/bin/false"}, "the compiler /bin/false failed"),
    "wanting one": ({"FASTNET_NO_NATIVE": "1"}, "installed with FASTNET_NO_NATIVE=1"),
}


@pytest.mark.timeout(240)  # it compiles or installs the whole package
@pytest.mark.parametrize("what", WITHOUT)
def test_without_a_compiler_it_installs_serves_and_says_why(
    tree: Path, tmp_path: Path, what: str
) -> None:
    build, reason = WITHOUT[what]
    environment = installed(tree, tmp_path, **build)
    python = sys.executable
    report = json.loads(run(python, environment, "doctor", "--json"))
    assert "backend python" in report["fastnet"]["auto"]["value"]
    assert reason in report["fastnet"]["auto"]["hint"]
    assert len(report["fastnet"]["auto"]["hint"]) < 200
    assert report["engines"]["epoll"]["value"] == "python"

    code = (
        "import fastnet, socket\n"
        "with fastnet.serve('echo') as server:\n"
        "    with socket.create_connection((server.endpoint.host, server.endpoint.port)) as peer:\n"
        "        peer.sendall(b'slow but sure')\n"
        "        print(peer.recv(100).decode(), server)\n"
    )
    said = subprocess.run(
        [python, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said.stdout.startswith("slow but sure tcp://127.0.0.1:"), said.stderr
    assert "backend python" in said.stdout


def run(python: str, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [python, "-m", "fastnet", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

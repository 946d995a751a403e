"""The rooted folder: what is done below it, and nothing outside of it.

Also while another process swaps folders for symbolic links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from fastnet.apps.transfer.target import root as root_module
from fastnet.apps.transfer.target.root import Outside, Parts, Root
from fastnet.limits import DEPTH_MAX, OPEN_FOLDERS_MAX
from tests.support.clients import DEADLINE_S
from tests.support.symlink_swap import Swapping

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
RACES = 4000


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    return tmp_path / "inside"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept").write_bytes(b"kept")
    return folder


@pytest.fixture
def root(inside: Path) -> Iterator[Root]:
    with Root(str(inside)) as root:
        yield root


def write(root: Root, parts: Parts, data: bytes = b"x") -> None:
    root.folder(parts[:-1], make=True)
    fd = root.open(parts, NEW)
    os.write(fd, data)
    os.close(fd)


def test_a_root_is_made_when_only_it_is_missing(tmp_path: Path) -> None:
    with Root(str(tmp_path / "new")) as root:
        assert os.path.samestat(os.fstat(root.fd), os.stat(tmp_path / "new"))
    with pytest.raises(FileNotFoundError):
        Root(str(tmp_path / "missing" / "new"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Root(str(tmp_path / "file"))


def test_folders_are_made_on_the_way_with_the_umask(root: Root, inside: Path) -> None:
    before = os.umask(0o027)
    try:
        fd = root.folder(("a", "b", "c"), make=True)
    finally:
        os.umask(before)
    assert os.path.samestat(os.fstat(fd), os.stat(inside / "a/b/c"))
    assert stat.S_IMODE(os.stat(inside / "a/b").st_mode) == 0o750
    with pytest.raises(FileNotFoundError):
        root.folder(("a", "x"))


def test_a_file_is_made_looked_at_renamed_and_removed(root: Root, inside: Path) -> None:
    write(root, ("a", "new"), b"1234")
    assert root.lstat(("a", "new")).st_size == 4  # type: ignore[union-attr]
    root.rename(("a", "new"), ("a", "name"), replace=False)
    assert os.listdir(inside / "a") == ["name"]
    root.folder(("b",), make=True)
    root.rename(("a", "name"), ("b", "name"), replace=True)
    assert (inside / "b/name").read_bytes() == b"1234"
    root.unlink(("b", "name"))
    assert root.lstat(("b", "name")) is None
    assert root.lstat(("not", "there", "at all")) is None


@pytest.mark.parametrize(
    "names", [("new", "old"), ("new", "f/old")], ids=["one folder", "two folders"]
)
def test_a_rename_without_leave_to_replace_never_does(
    root: Root, inside: Path, names: tuple[str, str]
) -> None:
    new, old = (tuple(name.split("/")) for name in names)
    write(root, new, b"new")
    write(root, old, b"old")
    with pytest.raises(FileExistsError):
        root.rename(new, old, replace=False)
    assert (inside / names[1]).read_bytes() == b"old"
    assert (inside / names[0]).read_bytes() == b"new"
    root.rename(new, old, replace=True)
    assert (inside / names[1]).read_bytes() == b"new"


def test_a_name_that_is_a_link_is_replaced_itself(root: Root, inside: Path, outside: Path) -> None:
    (inside / "name").symlink_to(outside / "kept")
    write(root, ("new",), b"new")
    with pytest.raises(FileExistsError):
        root.rename(("new",), ("name",), replace=False)
    root.rename(("new",), ("name",), replace=True)
    assert not (inside / "name").is_symlink()
    assert (outside / "kept").read_bytes() == b"kept"


def test_a_link_that_is_renamed_stays_a_link(root: Root, inside: Path, outside: Path) -> None:
    root.symlink("../outside/kept", ("new",))
    root.rename(("new",), ("name",), replace=False)
    assert os.readlink(inside / "name") == "../outside/kept"
    root.set_link_time(("name",), 5_000_000_007)
    assert os.lstat(inside / "name").st_mtime_ns == 5_000_000_007
    root.unlink(("name",))
    assert os.listdir(outside) == ["kept"]


def test_a_folder_takes_permissions_and_time_but_no_special_bits(root: Root, inside: Path) -> None:
    root.folder(("f",), make=True)
    os.chmod(inside / "f", 0o1755)
    root.set_folder(("f",), 0o6700, -1)
    found = os.stat(inside / "f")
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o1700, -1)
    for bad in (2**63, 2**64, -(2**200)):
        with pytest.raises(OSError):
            root.set_folder(("f",), 0o700, bad)


def test_the_room_left_and_a_sync_are_those_of_the_file_system(root: Root) -> None:
    assert root.free_bytes() > 0
    root.sync(())
    root.folder(("f",), make=True)
    root.sync(("f",))


DEEDS: dict[str, Callable[[Root, Parts], object]] = {
    "open": lambda root, parts: os.close(root.open(parts, NEW)),
    "read": lambda root, parts: os.close(root.open(parts, os.O_RDONLY)),
    "lstat": lambda root, parts: root.lstat(parts),
    "rename": lambda root, parts: root.rename(("mine",), parts, True),
    "rename away": lambda root, parts: root.rename(parts, ("stolen",), True),
    "unlink": lambda root, parts: root.unlink(parts),
    "symlink": lambda root, parts: root.symlink("x", parts),
    "set_folder": lambda root, parts: root.set_folder(parts, 0o777, 0),
    "set_link_time": lambda root, parts: root.set_link_time(parts, 0),
    "sync": lambda root, parts: root.sync(parts),
    "folder": lambda root, parts: root.folder(parts, True),
}


def seen(folder: Path) -> object:
    """All that could be changed in a folder without a descriptor of it, itself included."""
    return {
        path: (found.st_mode, found.st_mtime_ns, found.st_size)
        for path in (folder, *folder.rglob("*"))
        for found in (os.lstat(path),)
    }


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
@pytest.mark.parametrize("way", ["link", "folder/link", "file"])
def test_nothing_is_done_through_a_link_or_a_file(
    root: Root, inside: Path, outside: Path, deed: Callable[[Root, Parts], object], way: str
) -> None:
    write(root, ("mine",))
    (inside / "folder").mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "folder/link").symlink_to(outside)
    (inside / "file").touch()
    before = seen(outside)
    for name in ("kept", "new"):
        with pytest.raises(Outside) as caught:
            deed(root, (*way.split("/"), name))
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
        assert caught.value.path == way
    assert seen(outside) == before


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
@pytest.mark.parametrize("name", ["..", ".", "", "../outside/kept", "/etc/passwd", "a\0b"])
def test_nothing_is_done_by_a_name_that_is_no_step_down(
    root: Root, inside: Path, outside: Path, deed: Callable[[Root, Parts], object], name: str
) -> None:
    write(root, ("mine",))
    before = seen(outside), seen(inside)
    with pytest.raises(Outside):
        deed(root, (name,))
    with pytest.raises(Outside):
        deed(root, (name, "kept"))
    assert (seen(outside), seen(inside)) == before


@pytest.mark.parametrize("name", ["open", "read", "set_folder", "sync", "folder"])
def test_a_link_at_the_end_is_not_followed_either(
    root: Root, inside: Path, outside: Path, name: str
) -> None:
    (inside / "link").symlink_to(
        outside if name in ("set_folder", "sync", "folder") else outside / "kept"
    )
    before = seen(outside)
    with pytest.raises((Outside, FileExistsError)):
        DEEDS[name](root, ("link",))
    assert seen(outside) == before


def test_a_fifo_in_the_place_of_a_file_blocks_no_open(root: Root, inside: Path) -> None:
    os.mkfifo(inside / "fifo")
    with pytest.raises(OSError):
        root.open(("fifo",), os.O_WRONLY)
    os.close(root.open(("fifo",), os.O_RDONLY))


class Calls:
    """The real os.open, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = os.open

        def counted(*args: object, **named: object) -> int:
            self.count += 1
            return real(*args, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", counted)


def test_a_folder_seen_before_is_not_walked_to_again(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.folder(("a", "b", "c"), make=True)
    calls = Calls(monkeypatch)
    for i in range(50):
        write(root, ("a", "b", "c", str(i)))
    assert calls.count == 50
    root.folder(("a", "b", "d"), make=True)
    assert calls.count == 52  # it is not there, and then it is; a/b is known


def test_a_tree_of_any_width_and_depth_keeps_few_folders_open(root: Root, inside: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for i in range(3 * OPEN_FOLDERS_MAX):
        write(root, (f"d{i}", "file"))
    deep = tuple("d" * DEPTH_MAX)
    write(root, (*deep, "file"))
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN_FOLDERS_MAX
    write(root, ("d0", "again"))
    for i in range(OPEN_FOLDERS_MAX - DEPTH_MAX):
        root.folder((f"d{i}",))
    root.rename(("d0", "again"), (*deep, "again"), replace=False)
    assert (inside.joinpath(*deep) / "again").exists()


@pytest.mark.parametrize("kept_open", [False, True], ids=["walked each time", "kept open"])
def test_a_folder_that_becomes_a_link_at_any_moment_leads_nothing_out(
    inside: Path, outside: Path, kept_open: bool
) -> None:
    (inside / "a/b").mkdir(parents=True)
    (outside / "b").mkdir()
    before = seen(outside)
    made = refused = 0
    ends_s = monotonic() + DEADLINE_S
    with Root(str(inside)) as long, Swapping(inside / "a", outside):
        while monotonic() < ends_s and (made < RACES or (not kept_open and refused < 100)):
            name = f"f{made}"
            with Root(str(inside)) if not kept_open else contextlib.nullcontext(long) as root:
                try:
                    os.close(root.open(("a", "b", name), NEW))
                    root.rename(("a", "b", name), ("a", "b", "name"), True)
                    root.lstat(("a", "b", "name"))
                    root.set_folder(("a", "b"), 0o700, made)
                    made += 1
                except Outside:
                    refused += 1
    assert made > 100
    assert refused or kept_open
    assert seen(outside) == before
    assert os.listdir(inside / "a/b") == ["name"]


def test_threads_that_share_a_root_keep_their_files_in_their_own_folders(
    root: Root, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few folders kept open each thread's walks close those that the others just opened."""
    monkeypatch.setattr(root_module, "OPEN_FOLDERS_MAX", 2)

    def fill(name: str) -> None:
        for i in range(1000):
            write(root, (f"{name}{i % 3}", f"{name}-{i}"))

    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(fill, "abcd"))
    finally:
        sys.setswitchinterval(usual_s)
    found = [(path.parent.name[0], path.name[0]) for path in inside.glob("*/*")]
    assert set(found) == {(name, name) for name in "abcd"}
    assert len(found) == 4000


def test_a_folder_that_was_moved_away_is_another_one_after_forgetting(
    root: Root, inside: Path, outside: Path
) -> None:
    write(root, ("a", "first"))
    os.rename(inside / "a", outside / "a")
    root.forget()
    write(root, ("a", "second"))
    assert os.listdir(outside / "a") == ["first"]
    assert os.listdir(inside / "a") == ["second"]


def test_a_folder_of_another_owner_keeps_its_mode_and_owner(root: Root, inside: Path) -> None:
    root.folder(("f",), make=True)
    for now, wanted, then in (
        (0o700, 0o777, 0o700),
        (0o755, 0o000, 0o700),
        (0o775, 0o757, 0o755),
        (0o2770, 0o777, 0o2770),
    ):
        os.chmod(inside / "f", now)
        root.set_folder(("f",), wanted, 0, is_ours=False)
        assert stat.S_IMODE(os.stat(inside / "f").st_mode) == then

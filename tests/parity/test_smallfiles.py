"""Small files: the native and the pure module read, create and skip the same files.

Both stop at the same one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fastnet.apps.transfer.digest import ALGORITHMS, Algorithm
from fastnet.apps.transfer.protocol.entry import FILE, Entry
from fastnet.apps.transfer.protocol.frames import HEAD, pack_files, pack_head
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.apps.transfer.smallfiles import SMALL
from fastnet.apps.transfer.smallfiles.contract import Announced, Expected, Gathered, Scattered
from fastnet.apps.transfer.source.identity import identity
from fastnet.apps.transfer.source.walk import Filter, walk
from fastnet.apps.transfer.target.root import Root
from fastnet.registry import BACKENDS

NAMES = ["a", "b/c", "b/d", "b/e/f", "g", os.fsdecode(b"b/\xff \n")]
CONTENTS = [b"", b"x", b"y" * 4096, os.urandom(70_000), b"z" * 100, b"last"]


@pytest.fixture(params=BACKENDS)
def twin(request: pytest.FixtureRequest) -> str:
    if why := SMALL.why_not("gather", request.param):
        pytest.skip(why)
    return str(request.param)


@pytest.fixture
def gather(twin: str) -> ModuleType:
    return SMALL.load("gather", twin)


@pytest.fixture
def scatter(twin: str) -> ModuleType:
    return SMALL.load("scatter", twin)


@pytest.fixture
def survey(twin: str) -> ModuleType:
    return SMALL.load("survey", twin)


@pytest.mark.parametrize("files", [0, 1, 63, 64, 65, 1000])
def test_a_folder_is_surveyed_as_lstat_tells_it(
    survey: ModuleType, tmp_path: Path, files: int
) -> None:
    """V1."""
    for number in range(files):
        (tmp_path / (f"{number}" * (1 + number % 60))).write_bytes(b"x" * number)
    for name in ("\n", os.fsdecode(b"\xff\xfe"), "é", ".hidden", "z" * 255):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 30)
    os.utime(tmp_path / "hole", ns=(0, -1_500_000_000))
    wanted = []
    for name in os.listdir(tmp_path):
        status = (tmp_path / name).lstat()
        data_bytes = min(status.st_size, status.st_blocks * 512)
        wanted.append(
            (name, status.st_mode, status.st_mtime_ns, status.st_size, identity(status), data_bytes)
        )
    assert survey.survey(str(tmp_path)) == sorted(wanted)


@pytest.mark.parametrize("wrong", ["gone", "a file", "a NUL"])
def test_a_folder_that_cannot_be_read_is_named(
    survey: ModuleType, tmp_path: Path, wrong: str
) -> None:
    """V1."""
    path = str(tmp_path / "folder") + ("\0" if wrong == "a NUL" else "")
    if wrong == "a file":
        Path(path).write_bytes(b"")
    with pytest.raises((OSError, ValueError)) as told:
        survey.survey(path)
    if wrong != "a NUL":
        assert isinstance(
            told.value, NotADirectoryError if wrong == "a file" else FileNotFoundError
        )
        assert told.value.filename == path


def announced(folder: Path) -> list[Announced]:
    """A tree on the disk, as a manifest announces it."""
    for name, content in zip(NAMES, CONTENTS, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    entries, places = walk([str(folder)], Filter(), lambda path, why: None)
    numbered = enumerate(zip(entries, places, strict=True))
    return [
        Announced(number, entry, place) for number, (entry, place) in numbered if entry.kind == FILE
    ]


def contents(files: list[Announced]) -> list[bytes]:
    return [Path(each.place).read_bytes() for each in files]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_gathered_pack_is_the_one_of_the_protocol(
    gather: ModuleType, tmp_path: Path, name: str
) -> None:
    """G1, G2."""
    files, algorithm = announced(tmp_path), Algorithm(name)
    room = bytearray(200_000)
    got: Gathered = gather.gather(files, room, algorithm.of)
    triples = [
        (each.number, content, algorithm.of(content))
        for each, content in zip(files, contents(files), strict=True)
    ]
    assert pack_head(got.files, got.table, got.size) + room[: got.size] == b"".join(
        pack_files(triples)
    )
    one, other = Transcript(algorithm), Transcript(algorithm)
    one.add_rows(got.proof, got.files)
    for number, content, digest in triples:
        other.add(number, len(content), digest)
    assert (one.digest(), one.files, one.only_digest(name)) == (
        other.digest(),
        other.files,
        other.only_digest(name),
    )


@pytest.mark.parametrize(
    "wrong", ["gone", "replaced", "shorter", "a fifo", "a NUL in its name", "unreadable"]
)
@pytest.mark.parametrize("at", [0, 2])
def test_gathering_stops_before_what_is_not_as_announced(
    gather: ModuleType, tmp_path: Path, wrong: str, at: int
) -> None:
    """G1."""
    files = announced(tmp_path)
    path = Path(files[at].place)
    if wrong == "replaced":
        (tmp_path / "fresh").write_bytes(path.read_bytes())
        os.replace(tmp_path / "fresh", path)
    elif wrong == "shorter":
        files[at] = files[at]._replace(entry=files[at].entry._replace(size=path.stat().st_size + 1))
    elif wrong == "a NUL in its name":
        files[at] = files[at]._replace(place=f"{path}\0")
    else:
        path.unlink()
        if wrong == "a fifo":
            os.mkfifo(path)
        elif wrong == "unreadable":
            path.symlink_to(path)
    before = [Path(each.place).read_bytes() for each in files[:at]]
    room = bytearray(200_000)
    got: Gathered = gather.gather(files, room, Algorithm("xxh3-128").of)
    assert got.files == at
    assert room[: got.size] == b"".join(before)


class Arrival:
    """A pack of NAMES, and where it goes."""

    def __init__(self, root: Root, algorithm: Algorithm) -> None:
        self.root, self.algorithm = root, algorithm
        self.entries = [
            Entry(FILE, name, 0o640 + (number % 2), -number * 1_500_000_001, len(content), "id")
            for number, (name, content) in enumerate(zip(NAMES, CONTENTS, strict=True))
        ]
        for folder in (("b",), ("b", "e")):
            root.folder(folder, make=True)
        triples = [
            (number, content, algorithm.of(content)) for number, content in enumerate(CONTENTS)
        ]
        self.pack = bytearray(b"".join(pack_files(triples))[HEAD.size :])
        self.places = {number: entry.parts for number, entry in enumerate(self.entries)}

    def scatter(self, module: ModuleType, at: int = 0, due: list[int] | None = None) -> Scattered:
        expected = Expected(self.root, due or list(range(len(NAMES))), self.entries, self.places)
        made: Scattered = module.scatter(
            self.pack, expected, at, self.algorithm.size, self.algorithm.of
        )
        return made

    def made(self) -> dict[str, bytes]:
        found = [path for path in Path(self.root.path).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.root.path)): path.read_bytes() for path in found}


@pytest.fixture
def arrival(tmp_path: Path) -> Iterator[Arrival]:
    with Root(str(tmp_path / "inbox")) as root:
        yield Arrival(root, Algorithm("xxh3-128"))


def first(count: int) -> dict[str, bytes]:
    return dict(zip(NAMES[:count], CONTENTS[:count], strict=True))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_scattered_pack_is_there_with_modes_and_times(
    scatter: ModuleType, tmp_path: Path, name: str
) -> None:
    """S1, S5."""
    with Root(str(tmp_path / "inbox")) as root:
        arrival = Arrival(root, Algorithm(name))
        done = arrival.scatter(scatter)
        assert arrival.made() == first(len(NAMES))
        for entry in arrival.entries:
            status = Path(root.path, entry.path).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (
                entry.mode,
                entry.mtime_ns,
            )
    one, other = Transcript(arrival.algorithm), Transcript(arrival.algorithm)
    one.add_rows(done.proof, done.files)
    for number, content in enumerate(CONTENTS):
        other.add(number, len(content), arrival.algorithm.of(content))
    assert (done.files, done.size, one.digest()) == (
        len(NAMES),
        sum(map(len, CONTENTS)),
        other.digest(),
    )


@pytest.mark.parametrize(
    "wrong",
    ["taken", "no folder", "a link for a folder", "size", "kind", "digest", "not due", "a step up"],
)
@pytest.mark.parametrize("at", [1, 3])
def test_scattering_stops_before_what_is_wrong(
    scatter: ModuleType, arrival: Arrival, tmp_path: Path, wrong: str, at: int
) -> None:
    """S1, S2, S4. Nothing is left of the one that is wrong, and nothing came outside."""
    due, inbox = list(range(len(NAMES))), tmp_path / "inbox"
    if wrong == "taken":
        (inbox / NAMES[at]).write_bytes(b"taken")
    elif wrong in ("no folder", "a link for a folder"):
        arrival.places[at] = ("nowhere", "name")
        if wrong == "a link for a folder":
            (tmp_path / "outside").mkdir()
            (inbox / "nowhere").symlink_to(tmp_path / "outside")
    elif wrong == "size":
        arrival.entries[at] = arrival.entries[at]._replace(size=7)
    elif wrong == "kind":
        arrival.entries[at] = arrival.entries[at]._replace(kind="d")
    elif wrong == "digest":
        arrival.pack[4 + at * 24 + 8] ^= 1
    elif wrong == "not due":
        due[at] = len(NAMES) - 1
    else:
        arrival.places[at] = ("b", "../outside")
    done = arrival.scatter(scatter, due=due)
    assert (done.files, done.size) == (at, sum(map(len, CONTENTS[:at])))
    expected = first(at) | ({NAMES[at]: b"taken"} if wrong == "taken" else {})
    assert arrival.made() == expected
    assert not list(tmp_path.glob("outside*/*"))
    assert not list(inbox.rglob(".*"))


def test_of_a_pack_that_is_not_well_formed_nothing_is_made(
    scatter: ModuleType, arrival: Arrival
) -> None:
    """S3. Cut anywhere, longer by one, or claiming more files than it has."""
    whole = bytes(arrival.pack)
    claims = (2**32 - 1).to_bytes(4, "big")
    cuts = [whole[:n] for n in (0, 1, 3, 4, 5, 27, 28, 100, 147, 148, 149, 5000, len(whole) - 1)]
    for pack in [*cuts, whole + b"!", claims + whole[4:], (7).to_bytes(4, "big") + whole[4:]]:
        arrival.pack = bytearray(pack)
        assert arrival.scatter(scatter) == Scattered(0, 0, b"")
    assert arrival.made() == {}


def test_a_pack_continues_where_the_previous_one_ended(
    scatter: ModuleType, arrival: Arrival
) -> None:
    due = [99, 98, *range(len(NAMES))]
    assert arrival.scatter(scatter, at=2, due=due).files == len(NAMES)
    assert arrival.scatter(scatter, at=len(due), due=due).files == 0

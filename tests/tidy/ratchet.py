"""Files that do not keep a rule yet, and the command that shortens the list.

`python -m tests.tidy.ratchet` rewrites `not_yet.txt` without the files that have become clean;
`python -m tests.tidy.ratchet PATH...` prints what is wrong in the files below PATH.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.tree import ROOT, name_of

Rule = Callable[[Path], list[str]]

NOT_YET = Path(__file__).with_name("not_yet.txt")


def listed(rule: str) -> set[str]:
    """Files that are known not to keep the rule."""
    lines = NOT_YET.read_text().splitlines() if NOT_YET.exists() else []
    return {path for each, _, path in (line.partition(" ") for line in lines) if each == rule}


def check(rule: str, paths: Iterable[Path], offences: Rule) -> None:
    """Fail for an offence in a file that is not listed, and for a listed file that is clean."""
    found = {name_of(path): offences(path) for path in paths}
    known = listed(rule)
    new = [f"{path}: {each}" for path in found if path not in known for each in found[path]]
    assert not new, "\n" + "\n".join(new)
    clean = sorted(path for path in known if not found.get(path))
    assert not clean, f"clean now; run `python -m tests.tidy.ratchet`: {' '.join(clean)}"


def main(arguments: list[str]) -> None:
    from tests.tidy.rules import RULES

    lines = []
    for rule, (paths, offences) in RULES.items():
        for path in paths:
            name = name_of(path)
            if arguments:
                if name.startswith(tuple(arguments)):
                    print(*(f"{name}: {rule}: {each}" for each in offences(path)), sep="\n", end="")
            elif name in listed(rule) and offences(path):
                lines.append(f"{rule} {name}\n")
    if not arguments:
        NOT_YET.write_text("".join(lines))
        print(f"{len(lines)} left in {NOT_YET.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Words that this project does not use, because a reader cannot search for them.

docs/glossary.md has the term of the field for each. Words are matched whole and without case, in
prose, in strings and in identifiers (`lose_patience` and `LosePatience` are both "patience").
"""

from __future__ import annotations

import re
from pathlib import Path

BANNED = (
    "nobody",
    "somebody",
    "whoever",
    "anybody",
    "strangers?",
    "unproven",
    "patience",
    "lanes?",
    "last words?",
    "hears?",
    "heard",
    "sign of life",
    "cure",
    "so long",
    "so many",
    "so much",
    "goes on",
    "is let in",
    "sent away",
    "parked",
    "greetings?",
    "at once",
    "who has",
    "who is there",
    "desk",
    "hall",
    "what there is",
    "withheld",
)

BETWEEN = r"[\s#*/]+"
"""What stands between two words of a phrase: also the end of a line and the sign of a comment."""

PATTERN = re.compile(
    r"(?<![A-Za-z])(" + "|".join(BANNED).replace(" ", BETWEEN) + r")(?![A-Za-z])", re.IGNORECASE
)

EXEMPT = {"tests/tidy/vocabulary.py", "tests/tidy/not_yet.txt", "docs/glossary.md"}
"""The rule itself and the page that names the words to avoid."""


def prose(path: Path, name: str) -> str:
    """The text in which words are looked for, with the same number of lines."""
    text = path.read_text()
    if name == "CHANGELOG.md":  # the rows of its table name what was renamed
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return text.replace("_", " ")


def banned(path: Path, name: str) -> list[str]:
    """`LINE: word` for every banned word of a file."""
    if name in EXEMPT:
        return []
    text = prose(path, name)
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[1].split())!r}"
        for match in PATTERN.finditer(text)
    ]

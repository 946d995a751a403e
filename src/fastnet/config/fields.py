"""Option fields: one class per kind of value, which parses, checks and describes it.

The command line, a TOML file and the environment are three ways to write the same fields:
`--idle-timeout 5`, `idle_timeout = 5` and FASTNET_IDLE_TIMEOUT=5. Each ends in `build`, so each
value is checked by the same code and refused with the same message. Nothing here does I/O; what
only the host knows (a port in use) is found later.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from fastnet.errors import ConfigError
from fastnet.limits import NUMBER_MAX, SECONDS_MAX
from fastnet.transport.access import AccessList

ENVIRONMENT_PREFIX = "FASTNET_"

TRUE_OR_FALSE = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True)
class Kind:
    """Base of the kinds: any text."""

    unit: str = ""
    """What the value is called in --help."""

    value_type: ClassVar[type[Any]] = str
    described: ClassVar[str] = "a text"

    def parse(self, source: str, text: str) -> Any:
        """The value of a text. source: where it is from, for the message. Raises ConfigError."""
        return text

    def accepts(self, value: Any) -> bool:
        """Whether the value has the right type."""
        return isinstance(value, self.value_type)

    def check(self, name: str, value: Any) -> None:
        """Raises ConfigError for a value that is not of this kind or not within its bounds."""
        if not self.accepts(value):
            raise ConfigError(f"{name} = {value!r} is not {self.described}")


@dataclass(frozen=True)
class Text(Kind):
    """A text with a bound on its size."""

    bytes_max: int = NUMBER_MAX

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        if len(value.encode("utf-8", "surrogateescape")) > self.bytes_max:
            raise ConfigError(f"the {name} is too long", f"At most {self.bytes_max} bytes")


@dataclass(frozen=True)
class FilePath(Kind):
    """A path of a file."""

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        if not value or "\0" in value:
            raise ConfigError(f"{name} = {value!r} is not a path", "Write the name of a file")


@dataclass(frozen=True)
class Choice(Kind):
    """One of several words."""

    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        if value not in self.choices:
            raise ConfigError(
                f"{name} cannot be {value!r}", f"It is one of: {', '.join(self.choices)}"
            )


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    value_type: ClassVar[type[Any]] = bool
    described: ClassVar[str] = "true or false"

    def parse(self, source: str, text: str) -> bool:
        if text.lower() not in TRUE_OR_FALSE:
            raise ConfigError(f"{source}={text!r} is not true or false", "Write 1 or 0")
        return TRUE_OR_FALSE[text.lower()]


@dataclass(frozen=True)
class Count(Kind):
    """A whole number."""

    least: float | None = None
    most: float = NUMBER_MAX

    value_type: ClassVar[type[Any]] = int
    described: ClassVar[str] = "a whole number"

    def parse(self, source: str, text: str) -> Any:
        try:
            return self.value_type(text)
        except ValueError:
            raise ConfigError(f"{source}={text!r} is not {self.described}") from None

    def accepts(self, value: Any) -> bool:
        return isinstance(value, self.value_type) and not isinstance(value, bool)

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        if self.least is not None and not value >= self.least:
            raise ConfigError(f"{name} = {value} is too small", f"At least {self.least:g}")
        if value > self.most:
            raise ConfigError(f"{name} = {value} is too large", f"At most {self.most:.0f}")


@dataclass(frozen=True)
class CountOrWord(Count):
    """A whole number, or one word in its place."""

    word: str = ""

    def parse(self, source: str, text: str) -> Any:
        return text if text == self.word else super().parse(source, text)

    def check(self, name: str, value: Any) -> None:
        if value == self.word:
            return
        if not self.accepts(value):
            raise ConfigError(f"{name} = {value!r} is not {self.described} or {self.word!r}")
        super().check(name, value)


@dataclass(frozen=True)
class Seconds(Count):
    """A duration, or another number with a fraction."""

    most: float = SECONDS_MAX

    value_type: ClassVar[type[Any]] = float
    described: ClassVar[str] = "a number"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class TextList(Kind):
    """Several texts: a repeatable option, a TOML list, or a variable with commas."""

    value_type: ClassVar[type[Any]] = tuple
    described: ClassVar[str] = "a list of texts"

    def parse(self, source: str, text: str) -> tuple[str, ...]:
        return tuple(each.strip() for each in text.split(",") if each.strip())

    def accepts(self, value: Any) -> bool:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


@dataclass(frozen=True)
class Networks(TextList):
    """Networks in CIDR notation."""

    def check(self, name: str, value: Any) -> None:
        super().check(name, value)
        AccessList.parse(value)


@dataclass(frozen=True)
class Function(Kind):
    """A Python function; only the library can set it."""

    called_with: str = ""

    described: ClassVar[str] = "a function"

    def accepts(self, value: Any) -> bool:
        return callable(value)

    def check(self, name: str, value: Any) -> None:
        if not self.accepts(value):
            raise ConfigError(
                f"{name} = {value!r} is no function", f"It is called with {self.called_with}"
            )


def option(
    default: Any,
    help: str,
    unit: str = "",
    *,
    choices: Iterable[str] = (),
    least: float | None = None,
    word: str = "",
    kind: Kind | None = None,
) -> Any:
    """A dataclass field that is also an option.

    Args:
        default: None if the option may be unset.
        help: One sentence for --help.
        unit: What the value is called in --help.
        choices: The words it can be.
        least: The smallest number allowed.
        word: A text that can stand in place of a number.
        kind: The kind of value; by default it follows from the annotation and the arguments.
    """
    metadata = {"help": help, "unit": unit, "choices": tuple(choices), "least": least, "word": word}
    return dataclasses.field(default=default, metadata=metadata | {"kind": kind})


def options(config: type[Any]) -> list[dataclasses.Field[Any]]:
    """The options of a config class: those beside its fields, then its fields."""
    more: list[dataclasses.Field[Any]] = getattr(config, "more_options", list)()
    return more + own_options(config)


def own_options(config: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a config class that are options."""
    return [each for each in dataclasses.fields(config) if "help" in each.metadata]


def kind_of(config: type[Any], each: dataclasses.Field[Any]) -> Kind:
    """The kind of an option of a config class."""
    return kinds(config)[each.name]  # type: ignore[arg-type]


@functools.cache
def kinds(config: type[Any]) -> dict[str, Kind]:
    """The kind of each option of a config class, by name."""
    hints = option_types(config)
    return {
        each.name: each.metadata["kind"] or inferred_kind(each, hints[each.name])
        for each in options(config)
    }


def inferred_kind(each: dataclasses.Field[Any], hint: Any) -> Kind:
    """The kind that follows from the annotation of a field and the arguments of `option`."""
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    unit, least, word = (each.metadata[name] for name in ("unit", "least", "word"))
    if each.metadata["choices"]:
        return Choice(unit, each.metadata["choices"])
    if word:
        return CountOrWord(unit, least, word=word)
    if unit == "CIDR":
        return Networks(unit)
    by_type: dict[Any, Callable[[], Kind]] = {
        bool: lambda: Flag(unit),
        int: lambda: Count(unit, least),
        float: lambda: Seconds(unit, least),
        tuple: lambda: TextList(unit),
    }
    return by_type.get(typing.get_origin(hint) or hint, lambda: Kind(unit))()


def option_types(config: type[Any]) -> dict[str, Any]:
    """The type of each option of a config class, None included where it may be unset."""
    hints = typing.get_type_hints(config)
    by_name = {"str": str, "str | None": str | None}
    return {
        each.name: hints[each.name] if each.name in hints else by_name[str(each.type)]
        for each in options(config)
    }


def value_type(config: type[Any], name: str) -> type[Any]:
    """The type of an option's value: str, int, float, bool, or tuple if it is repeatable."""
    each = next(each for each in options(config) if each.name == name)
    return kind_of(config, each).value_type


def check(config: Any) -> None:
    """Check every field of a config object that is an option. Raises ConfigError."""
    for each in own_options(type(config)):
        value = getattr(config, each.name)
        if value is not None or each.default is not None:
            kind_of(type(config), each).check(each.name, value)


C = TypeVar("C")


def build(config: type[C], values: Mapping[str, Any], source: str) -> C:
    """A config object from names and typed values of a TOML file or the command line.

    source: where the values are from, for the message; "" for none. Raises ConfigError.
    """
    fields = dataclasses.fields(typing.cast("type[Any]", config))
    known = list(
        dict.fromkeys(
            [each.name for each in fields if "is_internal" not in each.metadata]
            + [each.name for each in options(config)]
        )
    )
    for name in values:
        if name not in known:
            raise ConfigError(f"{source}: unknown option {name!r}", suggestion(name, known))
    lists = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    try:
        return typing.cast("C", getattr(config, "from_values", config)(**lists))
    except ConfigError as error:
        raise ConfigError(
            f"{source}: {error.message}" if source else error.message, error.hint
        ) from None


def suggestion(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the closest known one, or all of them."""
    import difflib

    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}"


def from_environment(config: type[Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The options that FASTNET_NAME variables set, as typed values. Raises ConfigError."""
    found = {}
    for each in options(config):
        variable = ENVIRONMENT_PREFIX + each.name.upper()
        if variable in environment:
            found[each.name] = kind_of(config, each).parse(variable, environment[variable])
    return found

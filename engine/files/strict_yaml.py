"""YAML, strictly: from bytes that nobody vouches for, and into frozen dataclasses.

A file has a bounded size, and so has what its aliases unfold to; no key stands in it twice. Of a
dataclass every field is present that may not be left out, none is unknown, and every type is
right.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar

import yaml
from typing_extensions import override

from engine.errors import BundleError

T = TypeVar("T")

MAX_BYTES = 1 << 20  # a manifest of a thousand classes has a tenth of this
MAX_VALUES = 100_000  # aliases followed: a few lines of them can stand for billions
# Metadata of a dataclass's field that a file need not have; one that is empty is not written, so
# that files from before there was such a field keep their bytes.
MAY_BE_LEFT_OUT = {"may be left out": True}
_MAX_NUMBER_CHARS = 100  # the time to read a number grows with the square of its length

_NUMBERS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
# What YAML 1.1 takes for a text, and everybody else for a number.
_POWER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_NO_VALUE = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # of a key: `<<`, `=`
# What PyYAML itself raises where a tag stands before something else, such as `!!int x`.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large to be written by people.
    """
    with path.open("rb") as file:
        blob = file.read(MAX_BYTES + 1)
    if len(blob) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    return blob


def read_plain(text: bytes | str, max_values: int = MAX_VALUES) -> Any:
    """Plain values: texts, numbers, lists, mappings.

    Args:
        text: YAML.
        max_values: Most values, aliases followed.

    Raises:
        ValueError: It is no YAML, says a key twice, or holds too much; in one line.
    """
    try:
        loader = _StrictLoader(text, max_values)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"is not YAML: {where}{error.problem!s:.200}") from error
    except (yaml.YAMLError, *_BROKEN) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"is not YAML: {problem:.200}") from error


def read_yaml(path: Path) -> tuple[dict[str, Any], bytes]:
    """A YAML mapping and the bytes it was read from.

    Raises:
        BundleError: It is missing, too large, or no mapping.
    """
    try:
        blob = read_bytes(path)
        content: Any = read_plain(blob)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path} {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} holds a {type(content).__name__}, wanted a mapping")
    return content, blob


class _StrictLoader(yaml.SafeLoader):
    """Refuses what YAML allows and no honest file has."""

    def __init__(self, text: bytes | str, max_values: int) -> None:
        super().__init__(text)
        self._max_values = max_values
        self._n_read = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._n_read += 1
        if self._n_read > self._max_values:  # so that no more of it is read
            raise yaml.YAMLError(f"it holds more than {self._max_values} values")
        return super().compose_node(parent, index)

    @override
    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        if root is not None:
            self._n_values(root, {})
        return root

    def _n_values(self, node: yaml.Node, seen: dict[int, int | None]) -> int:
        """How many values a node unfolds to.

        Args:
            node: Of a graph, for an alias is the very node that it names.
            seen: The count of each node by its id; None as long as it is being counted.
        """
        if id(node) in seen:
            known = seen[id(node)]
            if known is None:
                raise _refusal(node, "an alias stands inside of what it names")
            return known
        seen[id(node)] = None
        n_values = 1 + sum(self._n_values(child, seen) for child in self._children(node))
        if n_values > self._max_values:
            problem = f"holds more than {self._max_values} values, its aliases followed"
            raise _refusal(node, problem)
        seen[id(node)] = n_values
        return n_values

    def _children(self, node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if isinstance(node, yaml.MappingNode):
            self._refuse_twins(node)
            return [child for pair in node.value for child in pair]
        if node.tag in _NUMBERS and len(node.value) > _MAX_NUMBER_CHARS:
            raise _refusal(node, f"a number of {len(node.value)} characters")
        return []

    def _refuse_twins(self, mapping: yaml.MappingNode) -> None:
        lines: dict[object, int] = {}
        for key_node, _value in mapping.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal(key_node, "a key is no plain word")
            self._children(key_node)
            has_value = key_node.tag not in _NO_VALUE
            key = self.construct_object(key_node) if has_value else key_node.value
            if key in lines:
                twin = f"key {key!r:.80} stands in line {lines[key]} already; keep one of them"
                raise _refusal(key_node, twin)
            lines[key] = key_node.start_mark.line + 1


def _refusal(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def parse(kind: type[T], content: object, where: str) -> T:
    """A dataclass from plain YAML values.

    Args:
        kind: A dataclass of ints, floats, strings, tuples, mappings from strings, optional values
            and dataclasses. Every field must be there, but those marked ``MAY_BE_LEFT_OUT``.
        content: What the YAML says.
        where: File and key, for the message.

    Raises:
        BundleError: A value does not fit; the message names its key, and what it should be.
    """
    if not isinstance(content, Mapping):
        raise BundleError(f"{where} is a {type(content).__name__}, wanted a mapping")
    known = dataclasses.fields(typing.cast("Any", kind))
    fields = [field.name for field in known]
    left_out = {field.name for field in known if field.metadata == MAY_BE_LEFT_OUT} - set(content)
    if odd := (set(fields) - left_out).symmetric_difference(content):
        key = min(map(str, odd))
        problem = "is missing" if key in fields else f"is unknown; known keys: {fields}"
        raise BundleError(f"{where}.{key} {problem}")
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], content[name], f"{where}.{name}") for name in content}
    try:
        return kind(**values)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error


def plain(value: object) -> object:
    """The YAML form of a dataclass, tuples as lists; what is empty and may be left out is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata != MAY_BE_LEFT_OUT or getattr(value, field.name)
        }
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    return value


def _value(hint: Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast("type[object]", hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is UnionType and len(arguments) == 2 and arguments[1] is NoneType:  # noqa: PLR2004 - X | None
        return None if value is None else _value(arguments[0], value, where)
    if origin is Mapping and isinstance(value, dict):
        keys, inner = arguments
        return {
            _scalar(keys, key, f"{where} key"): _value(inner, entry, f"{where}.{key}")
            for key, entry in value.items()
        }
    if origin is tuple and isinstance(value, list):
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(hints) == len(value):
            pairs = enumerate(zip(hints, value, strict=True))
            return tuple(_value(inner, entry, f"{where}[{i}]") for i, (inner, entry) in pairs)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: object, where: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        admitted = value in arguments
    elif origin is UnionType:
        admitted = type(value) in arguments or (value is None and NoneType in arguments)
    elif hint is float:
        admitted = type(value) in (int, float) or _is_power(value)
    else:
        admitted = type(value) is hint  # a bool is no int here
    if not admitted:
        wanted = getattr(hint, "__name__", None) if origin is None else hint
        raise BundleError(f"{where} is {value!r:.80}, wanted {wanted}")
    return _finite(typing.cast("float", value), where) if hint is float else value


def _finite(value: float | str, where: str) -> float:
    """A number that can be reckoned with: no bound in a file is met by an infinity as meant."""
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise BundleError(f"{where} is {value!r:.80}, wanted a finite number")
    return number


def _is_power(value: object) -> bool:
    """Whether a text is a number such as 5e-5, in which YAML 1.1 misses a point or a sign."""
    return (
        isinstance(value, str)
        and len(value) <= _MAX_NUMBER_CHARS
        and _POWER.fullmatch(value) is not None
    )

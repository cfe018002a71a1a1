"""YAML ↔ frozen dataclasses, strictly: every field present, none unknown, every type right."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar

import yaml

from engine.errors import BundleError

T = TypeVar("T")

MAX_BYTES = 1 << 20  # a manifest of a thousand classes has a tenth of this


def read_yaml(path: Path) -> tuple[dict[str, Any], bytes]:
    """A YAML mapping and the bytes it was read from.

    Raises:
        BundleError: It is missing, too large, or no mapping.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if len(blob) > MAX_BYTES:
        raise BundleError(f"{path} is larger than {MAX_BYTES} bytes: it is no bundle's manifest")
    try:
        content = yaml.safe_load(blob)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} holds a {type(content).__name__}, wanted a mapping")
    return content, blob


def parse(kind: type[T], content: object, where: str) -> T:
    """A dataclass from plain YAML values.

    Args:
        kind: A dataclass of ints, floats, strings, tuples, optional values and dataclasses.
        content: What the YAML says.
        where: File and key, for the message.

    Raises:
        BundleError: A value does not fit; the message names its key, and what it should be.
    """
    if not isinstance(content, Mapping):
        raise BundleError(f"{where} is a {type(content).__name__}, wanted a mapping")
    fields = [field.name for field in dataclasses.fields(typing.cast("Any", kind))]
    if odd := set(fields).symmetric_difference(content):
        key = min(map(str, odd))
        problem = "is missing" if key in fields else f"is unknown; known keys: {fields}"
        raise BundleError(f"{where}.{key} {problem}")
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], content[name], f"{where}.{name}") for name in fields}
    try:
        return kind(**values)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error


def plain(value: object) -> object:
    """The YAML form of a dataclass, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
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
        admitted = type(value) in (int, float)
    else:
        admitted = type(value) is hint  # a bool is no int here
    if not admitted:
        wanted = getattr(hint, "__name__", None) if origin is None else hint
        raise BundleError(f"{where} is {value!r:.80}, wanted {wanted}")
    return float(typing.cast("float", value)) if hint is float else value

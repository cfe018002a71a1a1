"""What a plan belongs to, and what a file of the plan cache says of itself."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.backends.profiles import Profiles
from engine.backends.tensorrt import plan_file
from engine.backends.tensorrt.gpu_identity import GpuIdentity
from engine.backends.tensorrt.plan_file import DamagedFileError
from engine.errors import BundleError
from engine.files.strict_yaml import parse, plain

PLAN = ".plan"
TIMINGS = ".timings"
_DIGEST_DIGITS = 32

H = TypeVar("H")


@dataclass(frozen=True, slots=True)
class TimingsKey:
    """What kernel timings belong to.

    Attributes:
        tensorrt: Kind and version (``str`` of a ``TensorRt``).
        gpu: Where they were measured.
    """

    tensorrt: str
    gpu: GpuIdentity

    @property
    def file_name(self) -> str:
        """Within the cache."""
        return _digest(self) + TIMINGS


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan was built for; if one of these differs, it is another plan.

    Attributes:
        onnx_sha256: Of the network's file, in hex.
        tensorrt: Kind and version (``str`` of a ``TensorRt``).
        gpu: The GPU that runs it.
        precision: Of the network, for people: the ONNX file says it too.
        profiles: Its shapes.
    """

    onnx_sha256: str
    tensorrt: str
    gpu: GpuIdentity
    precision: str
    profiles: Profiles

    def digest(self) -> str:
        """Names the plan's file."""
        return _digest(self)

    @property
    def file_name(self) -> str:
        """Within the cache."""
        return self.digest() + PLAN


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """A file of the cache.

    Attributes:
        path: The file.
        n_bytes: Its size.
        key: What it was built for; None: it is damaged.
        built_at_s: Seconds since 1970.
        used_at_s: When it was last loaded or written, seconds since 1970.
        build_s: How long building took.
        damage: Why it will not be loaded; empty if it is sound as far as its header tells.
        network: What people call it; empty if that was not written down.
    """

    path: Path
    n_bytes: int
    key: PlanKey | TimingsKey | None
    built_at_s: float
    used_at_s: float
    build_s: float
    damage: str = ""
    network: str = ""


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """The header of a plan's file."""

    plan: PlanKey
    built_at_s: float
    build_s: float
    network: str = ""


@dataclass(frozen=True, slots=True)
class TimingsHeader:
    """The header of a file of kernel timings."""

    timings: TimingsKey
    built_at_s: float


def write_entry(path: Path, header: PlanHeader | TimingsHeader, payload: bytes) -> None:
    """Write a file of the cache, all at once or not at all.

    Raises:
        OSError: It cannot be written; nothing is left.
    """
    content = plain(header)
    assert isinstance(content, dict)  # noqa: S101 - the plain form of a dataclass
    plan_file.write_sealed(path, content, payload)


def read_entry(path: Path, kind: type[H]) -> tuple[H, bytes]:
    """A file of the cache: its header, and what it holds.

    Raises:
        DamagedFileError: It is not what was written, or others could have written it.
        FileNotFoundError: There is none.
    """
    sealed, payload = plan_file.read_payload(path)
    return _header(kind, sealed.header), payload


def list_entry(path: Path) -> PlanEntry | None:
    """What a file of the cache says of itself; None if it was deleted meanwhile."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    n_bytes, used_at_s = status.st_size, status.st_mtime
    try:
        sealed = plan_file.read_header(path)
        if path.suffix == PLAN:
            plan = _header(PlanHeader, sealed.header)
            about = (plan.plan, plan.built_at_s, used_at_s, plan.build_s)
            return PlanEntry(path, n_bytes, *about, network=plan.network)
        timings = _header(TimingsHeader, sealed.header)
        return PlanEntry(path, n_bytes, timings.timings, timings.built_at_s, used_at_s, 0.0)
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        return PlanEntry(path, n_bytes, None, used_at_s, used_at_s, 0.0, str(error))


def _header(kind: type[H], content: dict[str, Any]) -> H:
    if kind is PlanHeader:
        content = {"network": "", **content}  # older files do not say
    try:
        return parse(kind, content, "header")
    except BundleError as error:
        raise DamagedFileError(f"its {error}") from error


def _digest(key: PlanKey | TimingsKey) -> str:
    text = json.dumps(plain(key), sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:_DIGEST_DIGITS]

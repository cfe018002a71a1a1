"""``s2net render-scenes`` draws what its options say."""

import sys
from pathlib import Path

import pytest

from engine.scenes import dataset
from engine.scenes.dataset import SceneCounts
from engine.scenes.difficulty import HARD, PLAIN, Difficulty
from training.cli import main


@pytest.mark.parametrize(("options", "wanted"), [([], PLAIN), (["--hard"], HARD)])
def test_hard_scenes_are_drawn_when_asked_for(
    options: list[str],
    wanted: Difficulty,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    asked: list[tuple[Path, SceneCounts, int, int, Difficulty]] = []

    def draw(out, counts, draw, processes, difficulty, on_progress):
        on_progress(1, 1)
        asked.append((out, counts, draw, processes, difficulty))
        return 1

    monkeypatch.setattr(dataset, "render_scenes", draw)
    words = ["render-scenes", "--out", str(tmp_path), "--draw", "3", "--processes", "2"]
    monkeypatch.setattr(sys, "argv", ["s2net", *words, *options])
    with pytest.raises(SystemExit) as ended:
        main()

    assert 0 == ended.value.code
    assert [(tmp_path, SceneCounts(), 3, 2, wanted)] == asked
    assert "1 videos, tags.csv and annotations.json" in capsys.readouterr().out

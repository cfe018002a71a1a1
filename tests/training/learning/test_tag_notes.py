"""What is said of tags before anything is trained."""

from dataclasses import replace

import pytest

from engine.grid import Grid
from tests.support.tiny_training import a_record
from training.learning.tag_notes import look_alikes, tag_notes
from training.records import FeatureSet, Point


def tagged(names, *tags):
    rows = [[0.0, 0.0, 0.0]] * 4
    records = tuple(a_record(f"clip-{n}", rows, tags=one) for n, one in enumerate(tags))
    return FeatureSet(tuple(names), records, Grid(25, 4, 4), 3)


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["fight", "Fight", "fihgt", "fall"], [["Fight", "fight", "fihgt"]]),
        (["pick up", "pick-up", "Pick_Up"], [["Pick_Up", "pick up", "pick-up"]]),
        (["jump", "jumps", "run", "runs"], [["jump", "jumps"], ["run", "runs"]]),
        (["laufen", "läufen"], [["laufen", "läufen"]]),
        (["door 1", "door 2"], []),
        (["pick", "pick up"], []),
        (["open door", "close door", "enter", "exit", "walk left", "walk right"], []),
        (["跌倒", "打架"], []),
        ([], []),
    ],
)
def test_names_that_are_probably_one_class_are_found(names, alike):
    assert alike == look_alikes(names)


def test_counts_come_first_and_then_what_looks_wrong():
    videos = tagged(["fall", "fight", "Fight"], *[(0, 1)] * 6, (0, 2), (0,))

    assert [
        "clips of each class: fall 8, fight 6, Fight 1; with nothing in them: 0",
        "fewer than 5 clips, too few to learn from: Fight (1)",
        "every clip is tagged 'fall', so nothing tells it apart: add clips without it",
        "these tags look alike: 'Fight', 'fight'; if they are one class, write them alike",
    ] == list(tag_notes(videos))


def test_of_sound_tags_only_the_counts_are_told():
    videos = tagged(["fall", "run"], *[(0,)] * 5, *[(1,)] * 5, ())
    untagged = replace(videos.records[0], name="nobody looked", tags=None)
    videos = replace(videos, records=(*videos.records, untagged))

    assert ["clips of each class: fall 5, run 5; with nothing in them: 1"] == list(
        tag_notes(videos)
    )


def test_clicks_are_counted():
    videos = tagged(["fall", "run"], *[(0,)] * 5, *[(1,)] * 5, ())
    clicked = replace(videos.records[0], points=(Point(0, 0), Point(0, 200_000)))
    videos = replace(videos, records=(clicked, *videos.records[1:]))

    assert "clicks of each class: fall 2" in list(tag_notes(videos))

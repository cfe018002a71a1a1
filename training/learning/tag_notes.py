"""What a person should know of their tags before anything is trained. Pure."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import combinations

from training.records import FeatureSet

# A choice, not a measurement: of so few clips a quarter, which is held out, shows next to nothing.
FEW_CLIPS = 5
# `fight` and `fihgt` are so alike; `open door` and `close door` are not.
_ALIKE = 0.8


def tag_notes(feature_set: FeatureSet) -> Iterator[str]:
    """Say how often each class is tagged, and what about the tags looks like a mistake.

    Yields:
        Lines: all counts first, those of clicks too, then classes of few clips, classes that all
        clips have, and names that are probably one class.
    """
    tagged = [record for record in feature_set.records if record.tags is not None]
    counts = Counter(tag for record in tagged for tag in record.tags or ())
    names = feature_set.class_names
    n_quiet = sum(not record.tags for record in tagged)
    listed = ", ".join(f"{name} {counts[index]}" for index, name in enumerate(names))
    yield f"clips of each class: {listed}; with nothing in them: {n_quiet}"
    clicks = Counter(point.class_id for record in tagged for point in record.points)
    if clicks:
        clicked = ", ".join(f"{names[index]} {clicks[index]}" for index in sorted(clicks))
        yield f"clicks of each class: {clicked}"
    few = [f"{name} ({counts[i]})" for i, name in enumerate(names) if counts[i] < FEW_CLIPS]
    if few:
        yield f"fewer than {FEW_CLIPS} clips, too few to learn from: {', '.join(few)}"
    for index, name in enumerate(names):
        if counts[index] == len(tagged):
            yield f"every clip is tagged {name!r}, so nothing tells it apart: add clips without it"
    for alike in look_alikes(names):
        spelled = ", ".join(repr(name) for name in alike)
        yield f"these tags look alike: {spelled}; if they are one class, write them alike"


def look_alikes(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that are nearly the same, or differ in case, spaces or hyphens alone."""
    groups: list[list[str]] = [[name] for name in names]
    for one, other in combinations(names, 2):
        if _are_alike(one, other):
            first = next(group for group in groups if one in group)
            second = next(group for group in groups if other in group)
            if first is not second:
                first.extend(second)
                groups.remove(second)
    return [sorted(group) for group in groups if len(group) > 1]


def _are_alike(one: str, other: str) -> bool:
    words, other_words = _words(one), _words(other)
    a, b = "".join(words), "".join(other_words)
    if a == b:
        return True
    # `pick` and `pick up`, `door 1` and `door 2` are meant to differ.
    if len(words) != len(other_words) or _digits(a) != _digits(b):
        return False
    return SequenceMatcher(None, a, b, autojunk=False).ratio() >= _ALIKE


def _words(name: str) -> list[str]:
    return re.findall(r"\w+", name.casefold().replace("_", " "))


def _digits(name: str) -> str:
    return "".join(letter for letter in name if letter.isdigit())

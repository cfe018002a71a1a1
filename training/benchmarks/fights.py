"""Real fights on surveillance cameras: tagged training clips, and composited test streams.

The clips are two seconds long and come in many sizes and rates. Size and rate alone tell fights
from the rest better than chance, so all clips are written anew with one size and one rate. A
stream is test clips joined end to end. It has a scene cut at every boundary, which is why
everything that is measured on it is called composited.

Source of the clips: Akti, Tataroglu and Ekenel, Vision-based Fight Detection from Surveillance
Cameras (IPTA 2019).
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import DataError
from engine.grid import US_PER_S, Grid
from engine.judging.truth import TruthSpan
from engine.spec import FrameGeometry
from engine.types import Int64Array, Span, UInt8Array
from engine.video.encoding import encode_video
from engine.video.frames import read_video

FIGHT = "fight"
FPS = 25
# The centre square, because a letterbox or a stretched picture would give the original shape away.
GEOMETRY = FrameGeometry(resize_px=240, crop_px=240)
GRID = Grid(fps=FPS, snippet_frames=1, stride_frames=1)

_TEST_SHARE = 0.4
_FRAME_US = US_PER_S // FPS
_KEY_FRAME_EVERY = 25


@dataclass(frozen=True, slots=True)
class FightClip:
    """One clip.

    Attributes:
        name: Its unique name.
        path: Its file, original or rewritten.
        is_fight: Whether it shows a fight; if not, nothing happens in it.
        source: The video it was cut from; "" if nobody wrote it down.
        width_px: Width of the original picture in pixels.
        height_px: Height of the original picture in pixels.
    """

    name: str
    path: Path
    is_fight: bool
    source: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class StreamPart:
    """A clip and the interval of a stream in which it plays."""

    clip: FightClip
    span: Span


@dataclass(frozen=True, slots=True)
class CompositedStream:
    """Clips joined end to end.

    Attributes:
        name: Its unique name.
        path: The joined video.
        parts: The clips in order, without a gap between them.
    """

    name: str
    path: Path
    parts: tuple[StreamPart, ...]

    @property
    def duration_us(self) -> int:
        """Length of the stream in microseconds."""
        return self.parts[-1].span.end_us

    @property
    def truth(self) -> tuple[TruthSpan[int], ...]:
        """Fights; two that follow each other at once are one."""
        spans: list[Span] = []
        for part in self.parts:
            if not part.clip.is_fight:
                continue
            start_us = part.span.start_us
            if spans and spans[-1].end_us == start_us:
                start_us = spans.pop().start_us
            spans.append(Span(start_us, part.span.end_us))
        return tuple(TruthSpan(0, span) for span in spans)


@dataclass(frozen=True, slots=True)
class FightSet:
    """What `build_fights` wrote.

    Attributes:
        train: Clips to learn from; ``path`` is the rewritten file.
        test: The other clips, rewritten, each by itself.
        streams: The other clips, joined; none of their sources is in ``train`` too.
    """

    train: tuple[FightClip, ...]
    test: tuple[FightClip, ...]
    streams: tuple[CompositedStream, ...]

    @property
    def clips(self) -> tuple[FightClip, ...]:
        """All clips, each by itself."""
        return (*self.train, *self.test)

    @property
    def videos(self) -> list[Path]:
        """All videos that features are extracted from."""
        return [*(clip.path for clip in self.clips), *(stream.path for stream in self.streams)]


def read_fight_clips(folder: Path) -> list[FightClip]:
    """Read which clips there are from ``folder/manifest.json``.

    Raises:
        DataError: The manifest is missing or damaged.
    """
    path = folder / "manifest.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            FightClip(
                name=str(row["id"]),
                path=folder / row["file"],
                is_fight=row["label"] == FIGHT,
                source=row["source"] or "",
                width_px=int(row["w"]),
                height_px=int(row["h"]),
            )
            for row in rows
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}: fetch the clips") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error!r}): fetch the clips again") from error


def split_by_source(
    clips: Sequence[FightClip], test_share: float = _TEST_SHARE
) -> tuple[list[FightClip], list[FightClip]]:
    """Divide clips into train and test, see ``parted_by_source``."""
    train, test = parted_by_source(clips, [1 - test_share, test_share])
    return train, test


def parted_by_source(clips: Sequence[FightClip], shares: Sequence[float]) -> list[list[FightClip]]:
    """Divide clips into parts of about these shares, so that no source is in two.

    Sources, largest first, go to the part that lacks more of what they hold, so that all parts
    get their share of fights and of the rest. Clips of unknown source count as one source,
    because they may be of one camera. The order of the clips makes no difference.
    """
    by_source: dict[str, list[FightClip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        by_source.setdefault(clip.source, []).append(clip)
    wanted = np.outer(shares, _counts(clips))  # (part, kind)
    parts: list[list[FightClip]] = [[] for _ in shares]
    for _, group in sorted(by_source.items(), key=lambda item: (-len(item[1]), item[0])):
        lacks = (wanted / np.maximum(wanted.sum(axis=0), 1)) @ _counts(group)
        lacks /= np.array(shares)
        chosen = int(np.argmax(lacks))
        parts[chosen].extend(group)
        wanted[chosen] -= _counts(group)
    return parts


def build_fights(
    folder: Path, out: Path, *, clips_a_stream: int = 12, n_clips: int | None = None, seed: int = 0
) -> FightSet:
    """Rewrite the clips, join those of the test side, and leave a folder as rendered scenes have.

    The folder has ``videos/NAME.mp4``, ``tags.csv`` for training clips and ``annotations.json``
    for streams. Videos that are there already are kept, so it can be interrupted.

    Args:
        folder: Folder of the original clips.
        out: Folder that is written.
        clips_a_stream: Number of clips joined into one stream.
        n_clips: At most so many fights and so many other clips are taken on either side; None
            takes all.
        seed: Seed of the order of clips in streams.

    Raises:
        DataError: The manifest is unusable, or ``out`` holds streams of other clips.
        UnreadableVideoError: A clip cannot be read.
    """
    train, test = split_by_source(read_fight_clips(folder))
    if n_clips is not None:
        train, test = _first_of_each(train, n_clips), _first_of_each(test, n_clips)
    videos = out / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    learned = tuple(_rewritten(clip, videos) for clip in train)
    others = tuple(_rewritten(clip, videos) for clip in test)
    order = interleaved(test, np.random.default_rng(seed))
    streams = tuple(
        _joined(f"stream_{at // clips_a_stream:02}", order[at : at + clips_a_stream], videos)
        for at in range(0, len(order), clips_a_stream)
    )
    found = FightSet(learned, others, streams)
    _write_tables(found, out)
    return found


def interleaved(clips: Sequence[FightClip], draws: np.random.Generator) -> list[FightClip]:
    """Shuffle clips so that no two fights follow each other while there are enough others."""
    fights = [clip for clip in clips if clip.is_fight]
    others = [clip for clip in clips if not clip.is_fight]
    draws.shuffle(fights)
    draws.shuffle(others)
    # Gap g lies before the g-th other clip; a fight falls into each of so many drawn gaps.
    n_gaps = len(others) + 1
    gaps = np.concatenate([draws.permutation(n_gaps) for _ in range(len(fights) // n_gaps + 1)])
    of_gap = np.sort(gaps[: len(fights)], kind="stable").tolist()
    order: list[FightClip] = []
    for gap in range(n_gaps):
        order.extend(fights.pop() for _ in range(of_gap.count(gap)))
        order.extend(others[gap : gap + 1])
    return order


def grid_pictures(path: Path) -> list[UInt8Array]:
    """Read a clip's pictures at 25 a second, the centre square of each, uint8 (240, 240, 3)."""
    batches = list(read_video(path, GEOMETRY, GRID))
    shown_us = np.concatenate([batch.pts_us for batch in batches])
    pictures = [picture for batch in batches for picture in batch.rgb]
    return [pictures[row] for row in _grid_rows(shown_us).tolist()]


def _grid_rows(shown_us: Int64Array) -> Int64Array:
    """Say which picture is on screen at every grid point from 0 to the last picture.

    Picture times in microseconds int64 (N,) → picture numbers int64 (M,).
    """
    grid_us = np.arange(0, int(shown_us[-1]) + 1, _FRAME_US)
    return np.maximum(np.searchsorted(shown_us, grid_us, "right") - 1, 0)


def _rewritten(clip: FightClip, videos: Path) -> FightClip:
    target = videos / f"{clip.name}.mp4"
    if not target.exists():
        _encode(grid_pictures(clip.path), target)
    return FightClip(clip.name, target, clip.is_fight, clip.source, clip.width_px, clip.height_px)


def _joined(name: str, clips: Sequence[FightClip], videos: Path) -> CompositedStream:
    target = videos / f"{name}.mp4"
    # The list of its parts is written last, so a stream that has one is whole.
    is_there = target.with_suffix(".json").exists()
    ends_us = _ends_of(target, clips) if is_there else _join(clips, target)
    starts_us = [0, *ends_us[:-1]]
    parts = tuple(
        StreamPart(clip, Span(start_us, end_us))
        for clip, start_us, end_us in zip(clips, starts_us, ends_us, strict=True)
    )
    return CompositedStream(name, target, parts)


def _join(clips: Sequence[FightClip], target: Path) -> list[int]:
    """Write a stream and, beside it, which clip ends when; give the ends in microseconds."""
    ends_us: list[int] = []

    def pictures() -> Iterator[UInt8Array]:
        """Give the clips' pictures one after the other, uint8 (240, 240, 3)."""
        for clip in clips:
            shown = grid_pictures(clip.path)
            ends_us.append((ends_us[-1] if ends_us else 0) + len(shown) * _FRAME_US)
            yield from shown

    _encode(pictures(), target)
    parts = {"clips": [clip.name for clip in clips], "ends_us": ends_us}
    target.with_suffix(".json").write_text(json.dumps(parts) + "\n", encoding="utf-8")
    return ends_us


def _ends_of(target: Path, clips: Sequence[FightClip]) -> list[int]:
    path = target.with_suffix(".json")
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        if parts["clips"] != [clip.name for clip in clips]:
            raise DataError(f"{path}: lists other clips: choose another --out")
        return [int(end_us) for end_us in parts["ends_us"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged: remove it, and the stream is made anew") from error


def _encode(pictures: Iterable[UInt8Array], target: Path) -> None:
    """Write pictures, uint8 (240, 240, 3) each, as a video; it appears whole or not at all."""
    unfinished = target.with_suffix(".part")
    encode_video(pictures, unfinished, fps=FPS, key_frame_every=_KEY_FRAME_EVERY)
    unfinished.replace(target)


def _write_tables(found: FightSet, out: Path) -> None:
    with (out / "tags.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "tags"])
        table.writerows([clip.path.name, FIGHT if clip.is_fight else ""] for clip in found.train)
    database = {
        stream.name: {
            "subset": "testing",
            "duration": stream.duration_us / US_PER_S,
            "camera": "",
            "annotations": [
                {
                    "segment": [one.span.start_us / US_PER_S, one.span.end_us / US_PER_S],
                    "label": FIGHT,
                }
                for one in stream.truth
            ],
        }
        for stream in found.streams
    }
    content = {"version": 1, "classes": [FIGHT], "database": database}
    text = json.dumps(content, indent=1) + "\n"
    (out / "annotations.json").write_text(text, encoding="utf-8")


def _counts(clips: Sequence[FightClip]) -> Int64Array:
    """Count fights and other clips, int64 (2,)."""
    n_fights = sum(clip.is_fight for clip in clips)
    return np.array([n_fights, len(clips) - n_fights], np.int64)


def _first_of_each(clips: Sequence[FightClip], n_clips: int) -> list[FightClip]:
    fights = [clip for clip in clips if clip.is_fight][:n_clips]
    return fights + [clip for clip in clips if not clip.is_fight][:n_clips]

"""Which of a script's actions can be seen: one that is wholly hidden is none."""

from collections.abc import Iterator

import numpy as np

from engine.scenes.camera import HEIGHT_PX, WIDTH_PX
from engine.scenes.script import MARGIN_PX, Actor, Script, TrueAction

_MIN_INSIDE = 0.9  # share of the joints that must be in the square that a model sees


def _performers(script: Script, labelled: TrueAction) -> Iterator[Actor]:
    for actor in script.actors:
        for act in actor.acts:
            if act.motion == labelled.class_name and act.start_s == labelled.start_s:
                yield actor


def is_visible(script: Script, labelled: TrueAction) -> bool:
    """Can everybody who performs it be seen, at each of four moments and on average over them?"""
    length_s = labelled.end_s - labelled.start_s
    times_s = [labelled.start_s + share * length_s for share in (0.1, 0.35, 0.6, 0.9)]
    crew = list(_performers(script, labelled))
    most = script.difficulty.mean_hidden * len(times_s)
    for actor in crew:
        hidden = 0.0
        for time_s in times_s:
            share = _hidden(script, actor, crew, time_s)
            hidden += share
            if share > script.difficulty.max_hidden or hidden > most:
                return False
    return True


def _hidden(script: Script, actor: Actor, crew: list[Actor], time_s: float) -> float:
    """Share of an actor's joints that others or obstacles hide; 1 for one who leaves the frame."""
    _, pixels, place = actor.joints_at(time_s, script.camera)
    left, right = MARGIN_PX, WIDTH_PX - MARGIN_PX
    inside = (pixels[:, 0] >= left) & (pixels[:, 0] < right)
    inside &= (pixels[:, 1] >= 0) & (pixels[:, 1] < HEIGHT_PX)
    if inside.mean() < _MIN_INSIDE:
        return 1.0
    covered = np.zeros(len(pixels), bool)
    for thing in script.obstacles:
        if thing.depth > place[1]:
            covered |= thing.hides(pixels)
    for other in script.actors:
        if any(other is mate for mate in crew):
            continue
        _, body, there = other.joints_at(time_s, script.camera)
        if there[1] > place[1]:
            low, high = np.quantile(body, 0.1, axis=0), np.quantile(body, 0.9, axis=0)
            covered |= ((pixels >= low) & (pixels <= high)).all(axis=1)
    return float(covered.mean())

"""Draws a video's plan at random: who does what, where and when, so that it can be seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.scenes.camera import SIZES, Camera
from engine.scenes.difficulty import PLAIN, Difficulty
from engine.scenes.motions import LENGTHS_S, draw_style
from engine.scenes.obstacles import obstacles
from engine.scenes.script import X_RANGE_PX, Act, Actor, Place, Script, TrueAction
from engine.scenes.visibility import is_visible

_WALK_PX_S, _RUN_PX_S = 48.0, 135.0
_MIN_APART_PX = 42.0
_INSTANT_S = 1e-6
_MAX_PLANS = 1000  # a plain scene needs a few, a hard one some dozens


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a video should hold.

    Attributes:
        actions: Class names in order of time; those that no longer fit are left out.
        duration_s: Length.
        gap_s: Shortest and longest pause between actions.
        lead_s: Shortest and longest pause before the first.
        together: How often someone else starts an action while the one before goes on, 0..1.
    """

    actions: tuple[str, ...]
    duration_s: float
    gap_s: tuple[float, float] = (1.2, 4.4)
    lead_s: tuple[float, float] = (0.8, 2.5)
    together: float = 0.1


def plan(camera: Camera, wanted: Wanted, seed: int, difficulty: Difficulty = PLAIN) -> Script:
    """A plan in which every action can be seen; plans are drawn until one is found.

    Raises:
        ValueError: A thousand plans in a row hid some action.
    """
    for attempt in range(_MAX_PLANS):
        rng = np.random.default_rng([seed, attempt])
        script = _Planner(camera, wanted, rng, difficulty).script(seed)
        if all(is_visible(script, labelled) for labelled in script.truth):
            return script
    raise ValueError(f"no visible plan for {wanted} on {camera.name}, seed {seed}")


class _Planner:
    def __init__(
        self, camera: Camera, wanted: Wanted, rng: np.random.Generator, difficulty: Difficulty
    ) -> None:
        self._camera = camera
        self._wanted = wanted
        self._rng = rng
        self._hard = difficulty
        fewest, most = difficulty.people
        n_actors = int(rng.integers(fewest, most + 1))
        self._acts: list[list[Act]] = [[] for _ in range(n_actors)]
        self._places: list[Place] = []
        for _ in range(n_actors):
            self._places.append(self._free_place(self._places))
        self._truth: list[TrueAction] = []

    def script(self, seed: int) -> Script:
        wanted, rng = self._wanted, self._rng
        next_s = float(rng.uniform(*wanted.lead_s))
        for class_name in wanted.actions:
            last = self._truth[-1] if self._truth else None
            if last and last.class_name != class_name and rng.uniform() < wanted.together:
                next_s = last.start_s + self._hard.joins_at * (last.end_s - last.start_s)
            ended_s = self._act_out(class_name, next_s)
            if ended_s is None:
                continue
            next_s = max(ended_s, last.end_s if last else 0) + float(rng.uniform(*wanted.gap_s))
        for i in range(len(self._acts)):
            self._idle_until(i, wanted.duration_s)
        actors = tuple(
            Actor(float(rng.uniform(*SIZES)), _colours(rng), tuple(acts)) for acts in self._acts
        )
        truth = tuple(sorted(self._truth, key=lambda labelled: labelled.start_s))
        things = obstacles(self._camera, self._hard, seed)
        return Script(self._camera, wanted.duration_s, actors, truth, seed, self._hard, things)

    def _free_at(self, actor: int) -> float:
        return self._acts[actor][-1].end_s if self._acts[actor] else 0.0

    def _act_out(self, class_name: str, start_s: float) -> float | None:
        """Plan one action, from ``start_s`` or later; give its end, or None if no time is left."""
        length_s = float(self._rng.uniform(*LENGTHS_S[class_name]))
        by_time = sorted(range(len(self._acts)), key=self._free_at)
        crew = by_time[:2] if class_name == "fight" else [self._choose(by_time, start_s)]
        start_s = max([start_s, *(self._free_at(actor) + 0.3 for actor in crew)])
        if class_name == "fight":
            start_s = max(start_s, self._meeting_s(crew))
        same = [last for last in self._truth if last.class_name == class_name]
        if same:  # two of a kind must not touch: they could not be told apart
            start_s = max(start_s, same[-1].end_s + 0.8)
        if start_s + length_s > self._wanted.duration_s - 0.1:
            return None
        if class_name == "fight":
            self._fight(crew, start_s, length_s)
        else:
            self._alone(crew[0], class_name, start_s, length_s)
        self._truth.append(TrueAction(class_name, start_s, start_s + length_s))
        return start_s + length_s

    def _choose(self, by_time: list[int], start_s: float) -> int:
        free = [actor for actor in by_time if self._free_at(actor) + 0.3 <= start_s]
        return int(self._rng.choice(free)) if free else by_time[0]

    def _alone(self, actor: int, class_name: str, start_s: float, length_s: float) -> None:
        self._idle_until(actor, start_s)
        here = self._places[actor]
        end_s = start_s + length_s
        side = float(self._rng.choice([-1, 1]))
        turn = (
            side * float(self._rng.uniform(0.5, 1.5))
            if class_name in ("fall", "pick up")
            else None
        )
        path = self._shuttle(here, length_s) if class_name == "run" else (here,)
        act = Act(class_name, start_s, end_s, draw_style(self._rng, turn), path)
        self._add(actor, act)
        if class_name == "fall":
            up_s = end_s + float(self._rng.uniform(1.3, 1.9))
            self._add(actor, Act("get up", end_s, up_s, act.style, (here,)))

    def _shuttle(self, here: Place, length_s: float) -> tuple[Place, ...]:
        """A path to and fro at running speed, in steps of a tenth of a second."""
        low, high = X_RANGE_PX
        x, depth = here
        speed = self._hard.pace * _RUN_PX_S * float(self._rng.uniform(0.85, 1.2)) / 10
        way = 1.0 if x < (low + high) / 2 else -1.0
        path = [here]
        for _ in range(round(length_s * 10)):
            x += way * speed
            if not low <= x <= high:
                way, x = -way, min(max(x, low), high)
            depth = min(max(depth + 0.02 * way, 0.0), 1.0)
            path.append((x, depth))
        return tuple(path)

    def _meeting_s(self, crew: Sequence[int]) -> float:
        first, second = (self._places[actor] for actor in crew)
        return max(self._free_at(actor) for actor in crew) + 0.5 * self._way_s(first, second) + 0.6

    def _fight(self, crew: Sequence[int], start_s: float, length_s: float) -> None:
        (x0, d0), (x1, d1) = (self._places[actor] for actor in crew)
        depth = (d0 + d1) / 2
        half = 0.23 * self._camera.person_px(depth)
        low, high = X_RANGE_PX
        middle = min(max((x0 + x1) / 2, low + half), high - half)
        phase = float(self._rng.uniform())
        for actor, x in zip(crew, (x0, x1), strict=True):
            side = -1.0 if (x, actor) == min(zip((x0, x1), crew, strict=True)) else 1.0
            target = (middle + side * half, depth + 0.02 * side)
            self._walk_to(actor, target, start_s)
            style = replace(
                draw_style(self._rng, -side * 1.35), phase=phase + (0.5 if side > 0 else 0.0)
            )
            self._add(actor, Act("fight", start_s, start_s + length_s, style, (target,)))

    def _walk_to(self, actor: int, target: Place, until_s: float) -> None:
        free_s = self._free_at(actor)
        need_s = min(self._way_s(self._places[actor], target), until_s - free_s)
        self._idle_until(actor, until_s - need_s, may_walk=False)
        path = (self._places[actor], target)
        style = draw_style(self._rng)
        self._add(actor, Act("walk", self._free_at(actor), until_s, style, path))

    def _idle_until(self, actor: int, until_s: float, *, may_walk: bool = True) -> None:
        while until_s - self._free_at(actor) > _INSTANT_S:
            start_s = self._free_at(actor)
            end_s = min(start_s + float(self._rng.uniform(1.5, 4.0)), until_s)
            if until_s - end_s < 1.0:
                end_s = until_s
            here = self._places[actor]
            others = [place for i, place in enumerate(self._places) if i != actor]
            motion = str(self._rng.choice(self._hard.idle))
            path: tuple[Place, ...] = (here,)
            if may_walk and self._rng.uniform() < self._hard.walks:
                motion, path = "walk", (here, self._towards(here, others, end_s - start_s))
            self._add(actor, Act(motion, start_s, end_s, draw_style(self._rng), path))

    def _towards(self, here: Place, others: list[Place], time_s: float) -> Place:
        goal = self._free_place(others)
        share = min(1.0, time_s / max(self._way_s(here, goal), 1e-6))
        return here[0] + share * (goal[0] - here[0]), here[1] + share * (goal[1] - here[1])

    def _free_place(self, others: Sequence[Place]) -> Place:
        place, apart_px = (0.0, 0.0), self._hard.pace * _MIN_APART_PX
        for _ in range(20):
            place = (float(self._rng.uniform(*X_RANGE_PX)), float(self._rng.uniform()))
            if all(abs(place[0] - x) >= apart_px for x, _ in others):
                break
        return place

    def _way_s(self, here: Place, there: Place) -> float:
        """Seconds that walking there takes."""
        way_px = abs(there[0] - here[0]) + 60 * abs(there[1] - here[1])
        return way_px / (self._hard.pace * _WALK_PX_S)

    def _add(self, actor: int, act: Act) -> None:
        self._acts[actor].append(act)
        self._places[actor] = act.path[-1]


def _colours(rng: np.random.Generator) -> dict[str, tuple[int, int, int]]:
    def draw(low: int, high: int) -> tuple[int, int, int]:
        red, green, blue = rng.integers(low, high, 3).tolist()
        return red, green, blue

    shirt = draw(40, 230)
    tone = float(rng.uniform(0.45, 1.0))
    skin = (int(225 * tone), int(180 * tone), int(150 * tone))
    bare = bool(rng.integers(2))
    return {
        "shirt": shirt,
        "sleeves": skin if bare else shirt,
        "legs": draw(20, 140),
        "shoes": draw(10, 80),
        "skin": skin,
        "hair": draw(15, 100),
    }

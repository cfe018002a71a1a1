"""Who does what, where and when: a video before it is drawn, with its exact intervals."""

from dataclasses import dataclass, replace

import numpy as np

from engine.scenes.body import Points, Pose, blend, joints_of, project
from engine.scenes.camera import HEIGHT_PX, WIDTH_PX, Camera
from engine.scenes.difficulty import PLAIN, Difficulty
from engine.scenes.motions import MOTIONS, Style
from engine.scenes.obstacles import Obstacle

Place = tuple[float, float]  # x in pixels, depth 0 (far) .. 1 (near)

# The square that a model sees is as high as the picture: people stay inside it.
MARGIN_PX = (WIDTH_PX - HEIGHT_PX) // 2
X_RANGE_PX = (MARGIN_PX + 24.0, WIDTH_PX - MARGIN_PX - 24.0)
_BLEND_S = 0.3


@dataclass(frozen=True, slots=True)
class Act:
    """One person does one thing over ``[start_s, end_s)`` while moving along a path."""

    motion: str
    start_s: float
    end_s: float
    style: Style
    path: tuple[Place, ...]  # passed at constant speed

    def place_at(self, time_s: float) -> Place:
        """Where the person is."""
        if len(self.path) == 1:
            return self.path[0]
        share = (time_s - self.start_s) / max(self.end_s - self.start_s, 1e-6)
        at = min(max(share, 0.0), 1.0) * (len(self.path) - 1)
        first = min(int(at), len(self.path) - 2)
        (x0, d0), (x1, d1) = self.path[first], self.path[first + 1]
        part = at - first
        return x0 + part * (x1 - x0), d0 + part * (d1 - d0)

    def pose_at(self, time_s: float) -> Pose:
        """The person's pose; someone who moves faces where they go."""
        total_s = self.end_s - self.start_s
        pose = MOTIONS[self.motion](time_s - self.start_s, total_s, self.style)
        if len(self.path) == 1:
            return pose
        ahead_x = self.place_at(time_s + 0.12)[0] - self.place_at(time_s - 0.12)[0]
        return replace(pose, turn=1.45 * float(np.tanh(ahead_x / 3)))


@dataclass(frozen=True, slots=True)
class Actor:
    """One person: how they look, and their acts, which follow one another without a gap."""

    size: float
    colours: dict[str, tuple[int, int, int]]
    acts: tuple[Act, ...]

    def act_at(self, time_s: float) -> int:
        """Number of the act that is on."""
        for i, act in enumerate(self.acts):
            if time_s < act.end_s:
                return i
        return len(self.acts) - 1

    def joints_at(self, time_s: float, camera: Camera) -> tuple[Points, Points, Place]:
        """Joints in the body's axes (17, 3), in pixels (17, 2), and the place on the floor."""
        i = self.act_at(time_s)
        act = self.acts[i]
        pose = act.pose_at(time_s)
        since_s = time_s - act.start_s
        if i > 0 and since_s < _BLEND_S:
            share = since_s / _BLEND_S
            before = self.acts[i - 1].pose_at(self.acts[i - 1].end_s)
            pose = blend(before, pose, share * share * (3 - 2 * share))
        place = act.place_at(time_s)
        joints = joints_of(pose)
        floor_y, height = camera.floor_y_px(place[1]), self.size * camera.person_px(place[1])
        return joints, project(joints, place[0], floor_y, height, camera.tilt), place


@dataclass(frozen=True, slots=True)
class TrueAction:
    """An action and its exact interval."""

    class_name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """A video before it is drawn."""

    camera: Camera
    duration_s: float
    actors: tuple[Actor, ...]
    truth: tuple[TrueAction, ...]
    seed: int
    difficulty: Difficulty = PLAIN
    obstacles: tuple[Obstacle, ...] = ()

"""A jointed figure: pose angles → joint positions → places in the picture.

Lengths are shares of the person's height. Body axes: x to its left, y up, z where it faces.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # (N, 3) in the body's axes, or (N, 2) pixels

SHANK, THIGH, TRUNK, UPPER_ARM, FOREARM, NECK = 0.245, 0.245, 0.30, 0.17, 0.19, 0.10
HIP_HALF, SHOULDER_HALF, HEAD_RADIUS, FOOT = 0.055, 0.105, 0.068, 0.06


@dataclass(frozen=True, slots=True)
class Pose:
    """Angles in radians; 0 everywhere stands upright with hanging arms.

    Attributes:
        lift: Height of the lowest joint above the floor.
        lean: Trunk forward.
        tilt: Trunk to its left.
        topple: The whole body about its feet, forward.
        turn: About the vertical.
        arm_l, arm_r: Upper arm away from hanging.
        out_l, out_r: The plane in which that is: 0 forward, pi/2 sideways.
        elbow_l, elbow_r: Forearm further in the same plane.
        hip_l, hip_r: Thigh forward.
        knee_l, knee_r: Shank back.
        spread: Both thighs sideways.
        nod: Head forward.
    """

    lift: float = 0.0
    lean: float = 0.0
    tilt: float = 0.0
    topple: float = 0.0
    turn: float = 0.0
    arm_l: float = 0.08
    arm_r: float = 0.08
    out_l: float = 1.2
    out_r: float = 1.2
    elbow_l: float = 0.1
    elbow_r: float = 0.1
    hip_l: float = 0.0
    hip_r: float = 0.0
    knee_l: float = 0.0
    knee_r: float = 0.0
    spread: float = 0.06
    nod: float = 0.0


_ANGLES = tuple(field.name for field in fields(Pose))


def blend(first: Pose, second: Pose, share: float) -> Pose:
    """``share`` of the way from one pose to the other."""
    values = {
        name: (1 - share) * getattr(first, name) + share * getattr(second, name)
        for name in _ANGLES
    }
    return Pose(**values)


@dataclass(frozen=True, slots=True)
class Limb:
    """Two joints, the thickness between them, and what is worn there."""

    name: str
    start: int
    end: int
    thickness: float
    colour: str


JOINTS = (
    "pelvis", "neck", "head",
    "shoulder_l", "elbow_l", "hand_l", "shoulder_r", "elbow_r", "hand_r",
    "hip_l", "knee_l", "ankle_l", "toe_l", "hip_r", "knee_r", "ankle_r", "toe_r",
)  # fmt: skip
_AT = {name: i for i, name in enumerate(JOINTS)}


def _limb(start: str, end: str, thickness: float, colour: str) -> Limb:
    return Limb(f"{start}-{end}", _AT[start], _AT[end], thickness, colour)


LIMBS = (
    _limb("hip_l", "knee_l", 0.085, "legs"),
    _limb("knee_l", "ankle_l", 0.065, "legs"),
    _limb("ankle_l", "toe_l", 0.05, "shoes"),
    _limb("hip_r", "knee_r", 0.085, "legs"),
    _limb("knee_r", "ankle_r", 0.065, "legs"),
    _limb("ankle_r", "toe_r", 0.05, "shoes"),
    _limb("pelvis", "neck", 0.16, "shirt"),
    _limb("shoulder_l", "shoulder_r", 0.08, "shirt"),
    _limb("hip_l", "hip_r", 0.10, "legs"),
    _limb("shoulder_l", "elbow_l", 0.06, "sleeves"),
    _limb("elbow_l", "hand_l", 0.05, "skin"),
    _limb("shoulder_r", "elbow_r", 0.06, "sleeves"),
    _limb("elbow_r", "hand_r", 0.05, "skin"),
    _limb("neck", "head", 0.06, "skin"),
)
HEAD = _AT["head"]


def joints_of(pose: Pose) -> Points:
    """Where the joints are, float64 (17, 3); the lowest is 0.03 above ``pose.lift``."""
    up = np.array([np.sin(pose.tilt), np.cos(pose.lean) * np.cos(pose.tilt), np.sin(pose.lean)])
    forward = np.array([0.0, -np.sin(pose.lean), np.cos(pose.lean)])
    nodding = np.array([0.0, np.cos(pose.lean + pose.nod), np.sin(pose.lean + pose.nod)])
    place = np.zeros((len(JOINTS), 3))
    place[_AT["neck"]] = TRUNK * up
    place[_AT["head"]] = place[_AT["neck"]] + NECK * nodding
    for side, sign in (("l", 1.0), ("r", -1.0)):
        lateral = np.array([sign, 0.0, 0.0])
        _place_arm(place, pose, side, lateral, up, forward)
        _place_leg(place, pose, side, sign)
    if pose.topple:
        cos, sin = np.cos(pose.topple), np.sin(pose.topple)
        y, z = place[:, 1].copy(), place[:, 2].copy()
        place[:, 1], place[:, 2] = cos * y - sin * z, sin * y + cos * z
    place[:, 1] += pose.lift + 0.03 - place[:, 1].min()
    cos, sin = np.cos(pose.turn), np.sin(pose.turn)
    x, z = place[:, 0].copy(), place[:, 2].copy()
    place[:, 0], place[:, 2] = cos * x + sin * z, cos * z - sin * x
    return place


def _place_arm(
    place: Points, pose: Pose, side: str, lateral: Points, up: Points, forward: Points
) -> None:
    """Write one arm's joints into ``place`` (17, 3); the directions are vectors (3,)."""
    shoulder = TRUNK * 0.95 * up + SHOULDER_HALF * lateral
    away = np.cos(getattr(pose, f"out_{side}")) * forward
    away = away + np.sin(getattr(pose, f"out_{side}")) * lateral
    upper = getattr(pose, f"arm_{side}")
    lower = upper + getattr(pose, f"elbow_{side}")
    elbow = shoulder + UPPER_ARM * (np.sin(upper) * away - np.cos(upper) * up)
    place[_AT[f"shoulder_{side}"]] = shoulder
    place[_AT[f"elbow_{side}"]] = elbow
    place[_AT[f"hand_{side}"]] = elbow + FOREARM * (np.sin(lower) * away - np.cos(lower) * up)


def _place_leg(place: Points, pose: Pose, side: str, sign: float) -> None:
    """Write one leg's joints into ``place`` (17, 3)."""
    hip = np.array([sign * HIP_HALF, 0.0, 0.0])
    sideways = sign * np.sin(pose.spread)
    thigh = getattr(pose, f"hip_{side}")
    shank = thigh - getattr(pose, f"knee_{side}")
    straight = np.cos(pose.spread)
    knee = hip + THIGH * np.array([sideways, -np.cos(thigh) * straight, np.sin(thigh)])
    ankle = knee + SHANK * np.array([sideways, -np.cos(shank) * straight, np.sin(shank)])
    toe = ankle + FOOT * np.array([0.0, np.sin(shank), np.cos(shank)])
    for joint, point in (("hip", hip), ("knee", knee), ("ankle", ankle), ("toe", toe)):
        place[_AT[f"{joint}_{side}"]] = point


def project(
    place: Points, x_px: float, floor_y_px: float, height_px: float, tilt: float
) -> Points:
    """Joints (17, 3) → pixels (17, 2), seen by a camera that looks down by ``tilt`` radians."""
    x = x_px + height_px * place[:, 0]
    y = floor_y_px - height_px * (np.cos(tilt) * place[:, 1] - np.sin(tilt) * place[:, 2])
    return np.stack([x, y], axis=1)

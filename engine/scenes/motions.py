"""What people do: seconds since the start → pose. Only ``ACTIONS`` are classes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.scenes.body import Pose

ACTIONS = ("wave", "jump", "pick up", "fall", "fight", "run")
IDLE = ("stand", "talk", "phone", "stretch", "lean")

_TWO_PI = 2 * np.pi


@dataclass(frozen=True, slots=True)
class Style:
    """How this person does it this time.

    Attributes:
        rate: Tempo, around 1.
        size: Amplitude, around 1.
        phase: Where in its cycle the motion starts, 0..1.
        left: The left hand comes first.
        turn: Where the body faces; 0 to the camera, pi/2 to the right of the picture.
    """

    rate: float
    size: float
    phase: float
    left: bool
    turn: float


def draw_style(rng: np.random.Generator, turn: float | None = None) -> Style:
    """A style at random."""
    faces = float(rng.uniform(-1.1, 1.1)) if turn is None else turn
    return Style(
        rate=float(rng.uniform(0.85, 1.2)),
        size=float(rng.uniform(0.85, 1.15)),
        phase=float(rng.uniform()),
        left=bool(rng.integers(2)),
        turn=faces,
    )


Motion = Callable[[float, float, Style], Pose]


def _ramp(time_s: float, until_s: float) -> float:
    share = min(max(time_s / until_s, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _hill(time_s: float, total_s: float, edge_s: float) -> float:
    """0 → 1 → 0 with edges of ``edge_s``."""
    return min(_ramp(time_s, edge_s), _ramp(total_s - time_s, edge_s))


def _swing(time_s: float, hz: float, style: Style) -> float:
    return float(np.sin(_TWO_PI * (hz * style.rate * time_s + style.phase)))


def _sides(style: Style, **values: float) -> dict[str, float]:
    """Angles named ``..._a`` (first hand) and ``..._b`` → ``..._l`` and ``..._r``."""
    first, second = ("l", "r") if style.left else ("r", "l")
    return {
        name[:-1] + (first if name.endswith("_a") else second): value
        for name, value in values.items()
    }


def _stand(time_s: float, _total_s: float, style: Style) -> Pose:
    sway = 0.03 * _swing(time_s, 0.3, style)
    return Pose(turn=style.turn, tilt=sway, arm_l=0.1 + sway, arm_r=0.1 - sway)


def _talk(time_s: float, _total_s: float, style: Style) -> Pose:
    swing = _swing(time_s, 0.9, style)
    other = _swing(time_s, 0.6, style)
    return Pose(
        turn=style.turn,
        tilt=0.03 * other,
        nod=0.1 * other,
        **_sides(
            style,
            arm_a=0.35 + 0.15 * style.size * swing,
            out_a=0.5,
            elbow_a=1.3 + 0.35 * style.size * swing,
            arm_b=0.2 + 0.1 * other,
            out_b=0.5,
            elbow_b=0.9 + 0.3 * style.size * other,
        ),
    )


def _phone(time_s: float, _total_s: float, style: Style) -> Pose:
    sway = 0.04 * _swing(time_s, 0.3, style)
    held = _sides(style, arm_a=0.5 + sway, out_a=0.9, elbow_a=2.3)
    return Pose(turn=style.turn + sway, nod=0.15, tilt=sway, **held)


def _stretch(time_s: float, total_s: float, style: Style) -> Pose:
    up = _hill(time_s, total_s, min(1.0, total_s / 2))
    arms = 0.1 + 2.7 * style.size * up
    return Pose(
        turn=style.turn,
        lean=-0.12 * up,
        tilt=0.1 * up * _swing(time_s, 0.25, style),
        arm_l=arms,
        arm_r=arms,
        out_l=1.0,
        out_r=1.0,
        elbow_l=0.25 * up,
        elbow_r=0.25 * up,
    )


def _lean(time_s: float, total_s: float, style: Style) -> Pose:
    down = _hill(time_s, total_s, min(0.9, total_s / 2))
    return Pose(
        turn=style.turn,
        lean=0.45 * style.size * down,
        arm_l=0.3 * down,
        arm_r=0.3 * down,
        out_l=0.3,
        out_r=0.3,
        elbow_l=0.4 * down,
        elbow_r=0.4 * down,
        knee_l=0.1 * down,
        knee_r=0.1 * down,
    )


def _stride(time_s: float, style: Style, hz: float, reach: float, fold: float) -> dict[str, float]:
    cycle = _TWO_PI * (hz * style.rate * time_s + style.phase)
    legs = {}
    for side, shift in (("l", 0.0), ("r", np.pi)):
        legs[f"hip_{side}"] = 0.1 + reach * float(np.sin(cycle + shift))
        legs[f"knee_{side}"] = 0.1 + fold * max(0.0, float(np.cos(cycle + shift)))
    return legs


def _walk(time_s: float, _total_s: float, style: Style) -> Pose:
    legs = _stride(time_s, style, 0.9, 0.42 * style.size, 0.6)
    arms = {"arm_l": -0.7 * legs["hip_l"] + 0.1, "arm_r": -0.7 * legs["hip_r"] + 0.1}
    return Pose(turn=style.turn, lean=0.04, out_l=0.0, out_r=0.0, **legs, **arms)


def _run(time_s: float, _total_s: float, style: Style) -> Pose:
    legs = _stride(time_s, style, 1.5, 0.85 * style.size, 1.5)
    arms = {"arm_l": -0.9 * legs["hip_l"] + 0.1, "arm_r": -0.9 * legs["hip_r"] + 0.1}
    return Pose(
        turn=style.turn,
        lean=0.28,
        lift=0.05 * abs(_swing(time_s, 1.5, style)),
        out_l=0.0,
        out_r=0.0,
        elbow_l=1.4,
        elbow_r=1.4,
        **legs,
        **arms,
    )


def _wave(time_s: float, total_s: float, style: Style) -> Pose:
    up = _hill(time_s, total_s, 0.3)
    swing = _swing(time_s, 1.9, style)
    both = style.size > 1.08  # noqa: PLR2004 - one in four waves with both arms
    raised = {"arm": 1.9 * up + 0.1, "out": 1.35, "elbow": (0.9 + 0.65 * swing) * up}
    arms = _sides(style, **{f"{name}_a": value for name, value in raised.items()})
    if both:
        arms |= _sides(style, **{f"{name}_b": value for name, value in raised.items()})
    return Pose(turn=0.6 * style.turn, tilt=0.05 * swing * up, **arms)


def _jump(time_s: float, _total_s: float, style: Style) -> Pose:
    period_s = 0.85 / style.rate
    at = (time_s % period_s) / period_s
    crouch = max(0.0, float(np.cos(np.pi * at / 0.5))) if at < 0.25 or at > 0.8 else 0.0  # noqa: PLR2004
    crouch = crouch if at < 0.5 else float(np.sin(np.pi * (at - 0.8) / 0.4))  # noqa: PLR2004
    flight = float(np.sin(np.pi * (at - 0.25) / 0.55)) if 0.25 <= at <= 0.8 else 0.0  # noqa: PLR2004
    arms = 0.3 + 1.7 * flight * style.size
    return Pose(
        turn=style.turn,
        lift=0.2 * style.size * max(flight, 0.0),
        lean=0.3 * crouch,
        hip_l=0.8 * crouch,
        hip_r=0.8 * crouch,
        knee_l=1.4 * crouch,
        knee_r=1.4 * crouch,
        arm_l=arms,
        arm_r=arms,
        out_l=0.9,
        out_r=0.9,
    )


def _pick_up(time_s: float, total_s: float, style: Style) -> Pose:
    down = _hill(time_s, total_s, 0.42 * total_s)
    bent = 1.25 * style.size * down
    reach = _sides(style, arm_a=0.2 + 1.0 * down, out_a=0.1, arm_b=0.2 + 0.3 * down, out_b=0.6)
    return Pose(
        turn=style.turn,
        lean=bent,
        nod=0.2 * down,
        hip_l=0.75 * down,
        hip_r=0.9 * down,
        knee_l=1.1 * down,
        knee_r=1.3 * down,
        **reach,
    )


FALLING_S = 0.75


def _fall(time_s: float, _total_s: float, style: Style) -> Pose:
    share = min(time_s * style.rate / FALLING_S, 1.0)
    gone = share**1.7
    side = 1.0 if style.left else -1.0
    thrown = float(np.sin(np.pi * share))
    return Pose(
        turn=style.turn,
        topple=side * 1.5 * gone,
        tilt=0.25 * gone * (style.phase - 0.5),
        hip_l=0.35 * gone,
        hip_r=0.1 * gone + 0.3 * thrown,
        knee_l=0.5 * gone,
        knee_r=0.25 * gone + 0.5 * thrown,
        arm_l=0.2 + 1.6 * thrown + 0.7 * gone,
        arm_r=0.2 + 1.9 * thrown + 0.4 * gone,
    )


def _get_up(time_s: float, total_s: float, style: Style) -> Pose:
    rest = 1 - _ramp(time_s, total_s)
    side = 1.0 if style.left else -1.0
    crouch = float(np.sin(np.pi * (1 - rest)))
    return Pose(
        turn=style.turn,
        topple=side * 1.5 * rest,
        lean=0.5 * crouch,
        hip_l=0.35 * rest + 0.9 * crouch,
        hip_r=0.1 * rest + 0.7 * crouch,
        knee_l=0.5 * rest + 1.3 * crouch,
        knee_r=0.25 * rest + 1.2 * crouch,
        arm_l=0.2 + 0.5 * rest,
        arm_r=0.2 + 0.4 * rest,
    )


def _fight(time_s: float, _total_s: float, style: Style) -> Pose:
    beat = 1.5 * style.rate * time_s + style.phase
    blow = max(0.0, float(np.sin(_TWO_PI * beat))) ** 2
    hand_is_left = bool(int(beat) % 2) != style.left
    kicks = int(beat) % 5 == 4  # noqa: PLR2004 - every fifth blow
    back = max(0.0, float(np.sin(_TWO_PI * beat + np.pi)))
    guard = {"arm_l": 0.9, "arm_r": 0.9, "elbow_l": 1.7, "elbow_r": 1.7}
    struck = "l" if hand_is_left else "r"
    if kicks:
        legs = {f"hip_{struck}": 1.3 * blow, f"knee_{struck}": 0.6 * (1 - blow)}
    else:
        legs = {"hip_l": 0.2, "knee_l": 0.3, "hip_r": -0.15, "knee_r": 0.2}
        guard[f"arm_{struck}"] = 0.9 + 0.6 * blow
        guard[f"elbow_{struck}"] = 1.7 * (1 - blow)
    lean = 0.12 + 0.22 * style.size * blow - 0.3 * back
    return Pose(turn=style.turn, lean=lean, out_l=0.25, out_r=0.25, **guard, **legs)


MOTIONS: dict[str, Motion] = {
    "stand": _stand,
    "talk": _talk,
    "phone": _phone,
    "stretch": _stretch,
    "lean": _lean,
    "walk": _walk,
    "get up": _get_up,
    "wave": _wave,
    "jump": _jump,
    "pick up": _pick_up,
    "fall": _fall,
    "fight": _fight,
    "run": _run,
}
# Shortest and longest length of each action, in seconds.
LENGTHS_S: dict[str, tuple[float, float]] = {
    "wave": (2.0, 4.8),
    "jump": (1.7, 4.2),
    "pick up": (1.8, 3.0),
    "fall": (1.6, 2.6),
    "fight": (2.4, 5.5),
    "run": (1.8, 4.0),
}

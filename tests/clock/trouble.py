"""What clocks and networks do to a camera's pictures, drawn by a seed: the world, not the law."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from engine.grid import US_PER_S

HOUR_US = 3600 * US_PER_S
DAY_US = 24 * HOUR_US
FPS = 4  # enough to date by, and a month is played in minutes
_DELAY_US = 60_000  # coding and network, at the least
_JITTER_US = 40_000  # on average


@dataclass(frozen=True, slots=True)
class Mishap:
    """Something that happens once.

    Attributes:
        at_us: When, in true time since the start.
        kind: What, in words.
        size_us: By how much stamps step, how wrong a wall clock is from then on, or how long
            nothing comes.
    """

    at_us: int
    kind: str
    size_us: int = 0


HOST_STEP = "the host's clock is set"
CAMERA_STEP = "the camera's stamps step"
CAMERA_WALL_STEP = "the camera's wall clock is set"
STALL = "the network stands still"
RECONNECT = "the camera is connected to anew"


def mishaps(seed: int, days: float) -> list[Mishap]:
    """What happens in so many days, oldest first."""
    random, found = Random(seed), []  # noqa: S311 - reproducible, no secret
    at_us = 0.0
    while True:
        at_us += random.expovariate(1) * DAY_US / 24
        if at_us >= days * DAY_US:
            break
        found.append(_mishap(random, round(at_us)))
    # Summer time: what keeps local time is an hour off, there and back.
    for share, step_us, wrong_us in ((0.4, -HOUR_US, -HOUR_US), (0.7, HOUR_US, 0)):
        at = round(share * days * DAY_US)
        found += [
            Mishap(at, CAMERA_STEP, step_us),
            Mishap(at + HOUR_US // 4, HOST_STEP, wrong_us),
            Mishap(at + HOUR_US // 2, CAMERA_WALL_STEP, wrong_us),
        ]
    return sorted(found, key=lambda mishap: mishap.at_us)


def _mishap(random: Random, at_us: int) -> Mishap:
    kind = random.choice((HOST_STEP, CAMERA_STEP, CAMERA_WALL_STEP, STALL, RECONNECT, RECONNECT))
    # Where host and camera are wrong by nearly the same, nobody could tell which of them is.
    sizes_s = {
        HOST_STEP: (random.gauss(0, 0.05), random.choice((-1, 1)) * random.uniform(3, 60)),
        CAMERA_STEP: (random.gauss(0, 5), random.gauss(0, 7 * 3600)),
        CAMERA_WALL_STEP: (
            random.gauss(0, 0.05),
            random.choice((-1, 1)) * random.uniform(100, 600),
        ),
        STALL: (random.uniform(0.2, 6),),
        RECONNECT: (random.uniform(0, 20),),
    }
    return Mishap(at_us, kind, round(random.choice(sizes_s[kind]) * US_PER_S))


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as it comes in.

    Attributes:
        connection: Number of the connection that it came by.
        stamp: Its stamp, in ticks of 90 kHz.
        taken_us: When it was taken, in true time.
        steady_us: When it arrived, by the host's clock that never goes back.
        unix_us: The same by the host's wall clock.
        wall_less_true_us: What the host's wall clock then is ahead of true time.
        camera_us: When it was taken, by the camera's wall clock; None: it does not say yet.
    """

    connection: int
    stamp: int
    taken_us: int
    steady_us: int
    unix_us: int
    wall_less_true_us: int
    camera_us: int | None


@dataclass(slots=True)
class World:
    """A camera, a network and a host.

    Attributes:
        seed: Of chance.
        days: How long it goes on.
        camera_ppm: By how much the camera's quartz is too fast, parts in a million; it changes
            by as much again in the course of a day, with the temperature.
        says_when: The camera sends its wall clock's time (RTP sender reports).
    """

    seed: int
    days: float
    camera_ppm: float = 200
    says_when: bool = False
    mishaps: list[Mishap] = field(init=False)

    def __post_init__(self) -> None:
        self.mishaps = mishaps(self.seed, self.days)

    def pictures(self) -> Iterator[Seen]:
        """The pictures, in the order in which they come."""
        random = Random(self.seed + 1)  # noqa: S311
        waiting = list(reversed(self.mishaps))
        connection, connected_us, free_us = 0, 0, 0
        host_us = camera_wall_us = 0
        stamp_us, stamp_step_us = float(random.randrange(10**9)), 0
        taken_us, apart_us = 0, US_PER_S // FPS
        while taken_us < self.days * DAY_US:
            while waiting and waiting[-1].at_us <= taken_us:
                mishap = waiting.pop()
                if mishap.kind == HOST_STEP:
                    host_us = mishap.size_us
                elif mishap.kind == CAMERA_STEP:
                    stamp_step_us += mishap.size_us
                elif mishap.kind == CAMERA_WALL_STEP:
                    camera_wall_us = mishap.size_us
                elif mishap.kind == STALL:
                    free_us = taken_us + mishap.size_us
                else:
                    connection += 1
                    taken_us += mishap.size_us
                    connected_us, stamp_us = taken_us, float(random.randrange(10**9))
            delay_us = _DELAY_US + round(random.expovariate(1 / _JITTER_US))
            free_us = arrived_us = max(free_us, taken_us + delay_us)  # TCP keeps the order
            says = self.says_when and taken_us > connected_us + 5 * US_PER_S
            yield Seen(
                connection=connection,
                stamp=round((stamp_us + stamp_step_us) * 9 / 100),
                taken_us=taken_us,
                steady_us=arrived_us,
                unix_us=arrived_us + host_us,
                wall_less_true_us=host_us,
                camera_us=taken_us + camera_wall_us if says else None,
            )
            taken_us += apart_us
            stamp_us += apart_us * (1 + self._ppm(taken_us) / 1e6)

    def _ppm(self, at_us: int) -> float:
        share = at_us % DAY_US / DAY_US
        return self.camera_ppm * (1 - 4 * abs(share - 0.5))  # from -ppm to +ppm and back

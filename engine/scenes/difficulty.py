"""How hard a scene is to see: who is in it, how small, behind what, and in what light."""

from dataclasses import dataclass, field

from engine.scenes.motions import IDLE

Range = tuple[float, float]  # lowest and highest value; each video draws its own between them


@dataclass(frozen=True, slots=True)
class Sight:
    """What sensor and encoder leave of a picture.

    Attributes:
        gain: Factor on brightness.
        noise: Factor on the camera's own noise.
        colour: How much colour is left, 0 (grey) to 1.
        kbits_per_second: What the encoder may send; None: as much as it takes to lose nothing
            that can be seen.
    """

    gain: Range = (1.0, 1.0)
    noise: Range = (1.0, 1.0)
    colour: Range = (1.0, 1.0)
    kbits_per_second: Range | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            ValueError: A range is upside down, below 0 or, where shares are wanted, above 1.
        """
        for name in ("gain", "noise"):
            _check_range(name, getattr(self, name))
        _check_range("colour", self.colour, most=1)
        if self.kbits_per_second is not None:
            _check_range("kbits_per_second", self.kbits_per_second, least=1)


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What videos draw their own values from; the defaults are the plain scenes.

    Attributes:
        prefix: Begins the names of its videos.
        person_px: Height in the picture of the shortest and the tallest who stand; None: as the
            cameras have them, 85 to 155.
        pace: Factor on speeds and distances across the floor, which are for people of 120 px.
        people: Fewest and most people in a video.
        together: How often someone starts an action while another one's goes on, 0..1, in long
            videos.
        clip_together: The same in clips.
        clip_pairs: Share of clips with two actions.
        joins_at: How much of the ongoing action is over then, 0..1.
        idle: What people do who do not act, each as likely; one that stands twice, twice as.
        walks: Share of idle time in which they walk.
        fixtures: Fewest and most pillars and plants between camera and people; each camera has
            its own.
        cars: Fewest and most cars parked there; each video has its own.
        max_hidden: Share of the joints of somebody who acts that may be hidden at one moment.
        mean_hidden: The same, on average over the action.
        nights: Share of videos by night.
        day, night: What is left of their pictures.
        drift: Share by which the light rises and falls slowly.
        drift_s: Seconds in which it does so once.
        shake_px: How far wind and traffic move the camera, in pixels, most of the time.
    """

    prefix: str = "draw"
    person_px: Range | None = None
    pace: float = 1.0
    people: tuple[int, int] = (2, 3)
    together: float = 0.1
    clip_together: float = 0.3
    clip_pairs: float = 0.3
    joins_at: float = 0.5
    idle: tuple[str, ...] = IDLE
    walks: float = 0.35
    fixtures: tuple[int, int] = (0, 0)
    cars: tuple[int, int] = (0, 0)
    max_hidden: float = 0.45
    mean_hidden: float = 0.45
    nights: float = 0.0
    day: Sight = field(default_factory=Sight)
    night: Sight = field(default_factory=Sight)
    drift: Range = (0.0, 0.0)
    drift_s: Range = (40.0, 120.0)
    shake_px: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            ValueError: A share is not one, a range is upside down, somebody is to idle in a way
                that there is not, or fewer than two are there, and two are needed for a fight.
        """
        shares = ("together", "clip_together", "clip_pairs", "joins_at", "walks", "nights")
        for name in (*shares, "max_hidden", "mean_hidden"):
            _check_range(name, (getattr(self, name), getattr(self, name)), most=1)
        for name in ("fixtures", "cars", "shake_px"):
            _check_range(name, getattr(self, name))
        _check_range("drift", self.drift, most=1)
        _check_range("drift_s", self.drift_s, least=1)
        _check_range("people", self.people, least=2)
        _check_range("pace", (self.pace, self.pace), least=0.01)
        if self.person_px is not None:
            # Limbs of people who are smaller are thinner than a pixel; of taller ones, heads
            # are outside the picture.
            _check_range("person_px", self.person_px, least=20, most=150)
            if self.person_px[1] < 2 * self.person_px[0]:
                raise ValueError(
                    f"person_px is {self.person_px}, wanted the tallest at least twice as tall as "
                    "the shortest, for one floor holds both"
                )
        unknown = sorted(set(self.idle) - set(IDLE))
        if unknown or not self.idle:
            raise ValueError(f"idle is {self.idle}, wanted some of {', '.join(IDLE)}")


def _check_range(
    name: str, given: Range, *, least: float = 0.0, most: float = float("inf")
) -> None:
    """Complain of a range that is upside down or leaves ``least`` to ``most``."""
    low, high = given
    if not least <= low <= high <= most:
        told = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        upto = "or more" if most == float("inf") else f"to {most:g}"
        order = ", lowest first" if low > high else ""
        raise ValueError(f"{name} is {told}, wanted {least:g} {upto}{order}")


PLAIN = Difficulty()
HARD = Difficulty(
    prefix="hard",
    person_px=(30, 80),
    pace=0.45,
    people=(4, 5),
    together=0.6,
    clip_together=0.8,
    clip_pairs=0.6,
    joins_at=0.3,
    idle=("talk", "talk", "phone", "stretch", "stretch", "lean", "stand"),
    walks=0.3,
    fixtures=(2, 3),
    cars=(0, 1),
    max_hidden=0.7,
    mean_hidden=0.45,
    nights=0.3,
    day=Sight(noise=(1.0, 1.6), kbits_per_second=(150, 300)),
    night=Sight(
        gain=(0.35, 0.55), noise=(1.6, 2.4), colour=(0.1, 0.5), kbits_per_second=(90, 160)
    ),
    drift=(0.05, 0.2),
    shake_px=(0.2, 1.0),
)

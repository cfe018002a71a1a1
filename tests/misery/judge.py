"""What was seen → whether a fault was told, and whether anything grew. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# Name and labels of a sample → its value.
Series = Mapping[tuple[Any, ...], float]

MOST_GROWTH = 0.15  # of resident memory, from the first quiet moment to the last
MORE_MIB = 24.0  # is never too much, whatever share that is
MORE_FILES, MORE_THREADS = 8, 6


@dataclass(frozen=True, slots=True)
class Usage:
    """What an instance's processes take together."""

    rss_mib: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Metric:
    """A sample of a metric, or all whose labels begin as these.

    Attributes:
        name: With its ``_total``.
        labels: Label → what its value begins with.
    """

    name: str
    labels: Mapping[str, str]

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"{self.name}{{{labels}}}" if labels else self.name

    def of(self, series: Series) -> float:
        """The sum of what it is."""
        return sum(value for key, value in series.items() if self._fits(key))

    def _fits(self, key: tuple[Any, ...]) -> bool:
        name, *labels = key
        of = dict(labels)
        return name == self.name and all(
            of.get(label, "").startswith(start) for label, start in self.labels.items()
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A log line with these fields.

    Attributes:
        event: Its event.
        fields: Field → what its value begins with, or what stands in it after a ``*``.
    """

    event: str
    fields: Mapping[str, str]

    def __str__(self) -> str:
        return " ".join([self.event, *(f"{k}={v}" for k, v in self.fields.items())])

    def is_in(self, lines: Iterable[Mapping[str, Any]]) -> bool:
        """True if one of the lines is it."""
        return any(line.get("event") == self.event and self._fits(line) for line in lines)

    def _fits(self, line: Mapping[str, Any]) -> bool:
        return all(_begins(str(line.get(k, "")), wanted) for k, wanted in self.fields.items())


def _begins(text: str, wanted: str) -> bool:
    return wanted[1:] in text if wanted.startswith("*") else text.startswith(wanted)


def level(usages: Sequence[Usage]) -> Usage:
    """The median of what was taken in a quiet time."""
    return Usage(
        median(usage.rss_mib for usage in usages),
        int(median(usage.files for usage in usages)),
        int(median(usage.threads for usage in usages)),
    )


def growth(levels: Sequence[Usage]) -> list[str]:
    """What grew from the first quiet time to the last, in words."""
    first, last = levels[0], levels[-1]
    most_mib = first.rss_mib + max(MOST_GROWTH * first.rss_mib, MORE_MIB)
    checks = (
        ("resident memory", first.rss_mib, last.rss_mib, most_mib),
        ("open files", first.files, last.files, first.files + MORE_FILES),
        ("threads", first.threads, last.threads, first.threads + MORE_THREADS),
    )
    return [
        f"{what} grew from {before:.0f} to {after:.0f}, at most {most:.0f} is flat"
        for what, before, after, most in checks
        if after > most
    ]


def run_without_offset(run: str) -> str:
    """The name that a run's producer gave it, of one that has won back its camera."""
    return run.partition("@")[0]

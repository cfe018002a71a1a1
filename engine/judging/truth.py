"""What is known to have happened. Pure."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from engine.types import Span

ClassId = TypeVar("ClassId", int, str)


@dataclass(frozen=True, slots=True)
class TruthSpan(Generic[ClassId]):
    """One action: its class and exact interval.

    Attributes:
        class_id: Its class index where there is a list of classes, else its class name.
        span: When.
    """

    class_id: ClassId
    span: Span

"""Up to where a partition is done: what its group's offset says, and what the newest step says.

Both are of one transaction. But a broker that dies while it completes one may come back and forget
to mark any of its partitions that were not marked yet. There it hangs, and Kafka never mends that:
the group's offset stays unsettled, and readers wait. So each step also says in the state topic
that it was taken, and whoever comes next ends what hangs.
"""

import re
from dataclasses import dataclass
from typing import Literal

from aiokafka import ConsumerRecord

from daemon.errors import MalformedRecordError, TransportError
from daemon.journal.base import Step
from daemon.kafka.stable_offset import GroupOffset
from daemon.wire.headers import to_headers
from daemon.wire.records import Record

# No camera's name is empty, so no camera's state has this key.
STEP_KEY = b""
_METADATA = re.compile(r"s2netd:(\d+):([^:]*):(.*)", re.DOTALL)
_NEXT_OFFSET = "vs_next_offset"

END_BY_HAND = "end it with Kafka's own kafka-transactions.sh (describe-producers, abort)"


@dataclass(frozen=True, slots=True)
class Committed:
    """Up to where a partition is done.

    Attributes:
        number: The last step; 0: none is known.
        next_offset: The first delivery that is not done; None: nothing was committed.
        log_id: Names the log that it counts in.
        served_by: Which model and host committed it.
    """

    number: int = 0
    next_offset: int | None = None
    log_id: str = ""
    served_by: str = ""

    @classmethod
    def of(cls, offset: GroupOffset) -> "Committed":
        """What an offset says; nothing but itself if an operator has moved it with other tools."""
        match = _METADATA.fullmatch(offset.metadata)
        if match is None:
            return cls(0, offset.offset)
        return cls(int(match[1]), offset.offset, match[2], match[3])

    @classmethod
    def by(cls, step: Step) -> "Committed":
        """What a step says of itself."""
        return cls(step.number, step.next_offset, step.log_id, step.served_by)

    @property
    def metadata(self) -> str:
        """What is written beside the offset."""
        return f"s2netd:{self.number}:{self.log_id}:{self.served_by}"


def step_record(taken: Committed) -> Record:
    """What a step says of itself in the state topic."""
    headers = to_headers({_NEXT_OFFSET: taken.next_offset})
    return Record(STEP_KEY, headers, taken.metadata.encode())


def parse_step(record: ConsumerRecord) -> Committed:
    """The inverse of ``step_record``.

    Raises:
        MalformedRecordError: It is none.
    """
    try:
        next_offset = int(dict(record.headers)[_NEXT_OFFSET])
        taken = Committed.of(GroupOffset(next_offset, (record.value or b"").decode()))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedRecordError(f"no step: {record.value!r}") from error
    if not taken.number:
        raise MalformedRecordError(f"no step: {record.value!r}")
    return taken


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the last step, once no transaction is under way.

    Attributes:
        known: The last step that was taken.
        ends: How that must end which a broker has left hanging; None: nothing hangs.
    """

    known: Committed
    ends: Literal["commit", "abort"] | None = None


def judge(
    offset: Committed,
    told: Committed | None,
    *,
    is_settled: bool,
    is_whole: bool,
    features_of: int | None = None,
    answered: Committed | None = None,
) -> Verdict:
    """What became of the last step.

    A transaction that hangs was committed if anything of it can be read, or if the broker has
    answered that it was. Otherwise nobody has seen it, so it may as well not have been.

    Args:
        offset: What the group's offset says.
        told: What the newest step says that can be read; None: none says anything.
        is_settled: False: a transaction hangs that may have replaced the group's offset.
        is_whole: False: a transaction hangs in the states.
        features_of: The step of the features in which one hangs; None: all can be read.
        answered: The last step of which the broker has told us that it was taken; None: of none.

    Raises:
        TransportError: It cannot be told, for the step is of a release whose steps said nothing.
    """
    ahead = _ahead(told, offset, is_settled=is_settled)
    if is_settled and is_whole and ahead is None:
        if features_of is None:
            return Verdict(offset)
        return Verdict(offset, "commit" if features_of <= offset.number else "abort")
    newest = max(offset.number, told.number if told else 0)
    if answered is not None and answered.number > newest:
        return Verdict(answered, "commit")
    if ahead is not None:
        return Verdict(ahead, "commit" if is_whole else "abort")  # a later one hangs in the states
    is_behind = offset.number > 0 and (told is None or told.number < offset.number)
    if is_settled:
        return Verdict(offset, "commit" if is_behind else "abort")
    is_ours = answered is not None and answered.number == offset.number  # and would have told
    if is_whole and is_behind and not is_ours:
        raise TransportError(
            f"a transaction hangs in the group's offset, at step {offset.number}, and it is of a "
            f"release whose steps do not say whether they were taken; {END_BY_HAND}, after which "
            "a step may be told twice"
        )
    return Verdict(offset, "abort")


def _ahead(told: Committed | None, offset: Committed, *, is_settled: bool) -> Committed | None:
    """The step that was taken and whose offset was lost, if there is one."""
    if told is None or told.number <= offset.number:
        return None
    is_next = told.number == offset.number + 1
    if offset.number == 0:  # an operator has moved it, and wins where nothing hangs
        return told if is_next and not is_settled else None
    is_of_this_log = told.log_id == offset.log_id
    return told if is_of_this_log and (is_next or not is_settled) else None

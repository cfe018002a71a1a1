"""What one daemon that nothing disturbs tells of the chunks in a topic.

The unit is a camera's run up to its end mark, for nothing that it tells of one depends on another.
Each content is shown once: rows share most of their footage, and a digest of the records' bytes
says which.
"""

import asyncio
import hashlib
import signal
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer, ConsumerRecord

from tests.faults.checker import Evidence, Final, check, finals_of
from tests.faults.cluster import CHUNK_PARTITIONS, EVENT_PARTITIONS, Cluster, _effect, gets_there
from tests.faults.daemons import PATIENCE_S, Daemon, Place, RowError, make_other_topics

Unit = tuple[str, str]  # camera, run


class Undisturbed:
    """Asks one undisturbed daemon, and remembers its answers.

    Args:
        cluster: Where it reads.
        bundle: What it knows.
        folder: Where it may write.
        patience_s: How long it may get no further.
    """

    def __init__(
        self, cluster: Cluster, bundle: Path, folder: Path, patience_s: float = PATIENCE_S
    ) -> None:
        self._patience_s = patience_s
        self._cluster = cluster
        self._bundle = bundle
        self._folder = folder
        self._answers: dict[tuple[Unit, str], dict[str, Final]] = {}
        self._n_asked = 0

    async def finals(
        self, chunks: str | Sequence[ConsumerRecord], excused: Iterable[str] = ()
    ) -> dict[str, Final]:
        """Event id → its final record.

        Args:
            chunks: A topic, or records that were in one, in their order.
            excused: Cameras that are left out.
        """
        records = await self._cluster.records(chunks) if isinstance(chunks, str) else chunks
        units = {
            unit: mine for unit, mine in _units(records).items() if unit[0] not in set(excused)
        }
        known = {unit: (unit, _digest(mine)) for unit, mine in units.items()}
        unknown = {unit: units[unit] for unit, key in known.items() if key not in self._answers}
        if unknown:
            answers = await self._ask(unknown)
            for unit in unknown:
                self._answers[known[unit]] = {
                    event_id: final
                    for run in _runs(units[unit])
                    for event_id, final in answers.get((unit[0], run), {}).items()
                }
        return {
            event_id: final
            for unit in units
            for event_id, final in self._answers[known[unit]].items()
        }

    async def _ask(self, units: Mapping[Unit, Sequence[ConsumerRecord]]) -> dict[Unit, dict]:  # type: ignore[type-arg]
        self._n_asked += 1
        name = f"undisturbed-{self._n_asked}"
        place = Place(
            self._cluster.bootstrap, f"{name}.chunks", f"{name}.events", name, self._bundle
        )
        await self._cluster.make_topic(place.chunks, CHUNK_PARTITIONS)
        await self._cluster.make_topic(place.events, EVENT_PARTITIONS)
        folder = self._folder / name
        folder.mkdir()
        await asyncio.to_thread(make_other_topics, place, folder)
        ends = await self._copy([r for mine in units.values() for r in mine], place.chunks)
        daemon = Daemon(place, folder)
        daemon.start()
        try:
            await self._all_committed(daemon, place, ends)
            if (status := await daemon.stop()) != 0:
                raise RowError(f"the undisturbed daemon exited with {status}: {daemon.log}")
        finally:
            daemon.destroy()
        return await self._answers_in(place.events)

    async def _copy(self, records: Sequence[ConsumerRecord], topic: str) -> dict[int, int]:
        ends: dict[int, int] = defaultdict(int)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._cluster.bootstrap, acks="all", enable_idempotence=True
        )
        await producer.start()
        try:
            written = [
                await producer.send(
                    topic,
                    record.value,
                    key=record.key,
                    headers=list(record.headers),
                    timestamp_ms=record.timestamp,
                )
                for record in records
            ]
            for there in await asyncio.gather(*written):
                ends[there.partition] = max(ends[there.partition], there.offset + 1)
        finally:
            await producer.stop()
        return ends

    async def _all_committed(self, daemon: Daemon, place: Place, ends: dict[int, int]) -> None:
        async def look() -> tuple[bool, int]:
            at = await self._cluster.committed(place.group, place.chunks)
            if daemon.status() is not None:
                raise RowError(f"the undisturbed daemon ended ({daemon.status()}): {daemon.log}")
            return _reaches(at, ends), sum(at.values())

        # However long an hour's footage takes on this machine.
        if not await gets_there(look, self._patience_s, every_s=0.2):
            daemon.signal(signal.SIGKILL)
            raise RowError(f"the undisturbed daemon did not get through: {daemon.log}")

    async def _answers_in(self, events: str) -> dict[Unit, dict]:  # type: ignore[type-arg]
        effects = [
            _effect(record, 0.0)
            for record in await self._cluster.records(events, committed_only=True)
        ]
        verdict = check(Evidence(effects, {}, {}, 0.0, None))
        if verdict.broken(None):
            raise RowError(f"even undisturbed, {verdict.broken(None)}: {verdict.examples}")
        told = [effect.record for effect in effects if effect.record is not None]
        by_unit: dict[Unit, list] = defaultdict(list)  # type: ignore[type-arg]
        for record in told:
            by_unit[record["camera_id"], record["epoch"]].append(record)
        return {unit: finals_of(mine) for unit, mine in by_unit.items()}


def _units(records: Sequence[ConsumerRecord]) -> dict[Unit, list[ConsumerRecord]]:
    """By camera and run, in order; what is no chunk of ours is left out.

    A run that has no end mark is one unit with the run after it, which ends it.
    """
    units: dict[Unit, list[ConsumerRecord]] = defaultdict(list)
    current: dict[str, Unit] = {}
    for record in records:
        headers = dict(record.headers)
        run = headers.get("vc_epoch")
        if not record.key or not run:
            continue
        unit = current.setdefault(record.key.decode(), (record.key.decode(), run.decode()))
        units[unit].append(record)
        if "vc_end" in headers:
            del current[unit[0]]
    return units


def _runs(records: Sequence[ConsumerRecord]) -> set[str]:
    return {dict(record.headers)["vc_epoch"].decode() for record in records}


def _digest(records: Sequence[ConsumerRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        for part in (record.value or b"", *(part for h in record.headers for part in h)):
            raw = part.encode() if isinstance(part, str) else part
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _reaches(committed: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(committed.get(partition, 0) >= end for partition, end in ends.items())

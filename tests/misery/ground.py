"""Two instances of the shipped unit under a systemd manager, a broker, and cameras that play."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.errors import KafkaError

from daemon.sources.chunk_files import last_number
from daemon.sources.positions import POSITIONS, read_position
from engine.errors import S2netdError
from tests.faults.bench import EVENT_PARTITIONS, reaches, say
from tests.faults.checker import Verdict
from tests.faults.cluster import CHUNK_PARTITIONS, Cluster, Observer, a_cluster
from tests.faults.daemons import Place, RowError, make_other_topics
from tests.faults.feeder import Feeder, Footage, KafkaLink, cameras_over, make_footage
from tests.faults.undisturbed import Undisturbed
from tests.misery.compare import of_folder, of_topic
from tests.misery.faults import Stage
from tests.misery.machine import Machine, until
from tests.misery.senders import FolderLink, Stranger
from tests.support.systemd import SystemManager
from tests.support.tiny_bundle import write_tiny_bundle

# What may go wrong on the way, and is told in a line.
EXPECTED_ERRORS = (RowError, TimeoutError, OSError, RuntimeError, KafkaError, S2netdError)
_UNDISTURBED_S = 3600.0  # for the undisturbed daemon to see it all


@dataclass(frozen=True, slots=True)
class Ground:
    """Where everything happens: the broker, what daemons share there, the machine, our folder."""

    cluster: Cluster
    place: Place
    machine: Machine
    footage: Footage
    folder: Path


@asynccontextmanager
async def a_ground(
    folder: Path, *, is_small: bool = False, **broker: str
) -> AsyncIterator[Ground]:
    """Everything set up, and nothing started; logs and files are in ``folder`` afterwards.

    Args:
        folder: For all that is written outside the machine.
        is_small: See ``Machine.set_up``.
        broker: Settings of the broker, with _ for a dot.
    """
    bundle = write_tiny_bundle(folder / "bundle")
    footage = await asyncio.to_thread(make_footage, folder)
    async with a_cluster(folder / "kafka", **broker) as cluster:
        place = Place(cluster.bootstrap, "misery.chunks", "misery.events", "misery", bundle)
        large = str(12 * 2**20)
        await cluster.make_topic(place.chunks, CHUNK_PARTITIONS, **{"max.message.bytes": large})
        await cluster.make_topic(place.events, EVENT_PARTITIONS)
        await asyncio.to_thread(make_other_topics, place, folder)
        with SystemManager() as manager:
            machine = Machine(manager)
            machine.set_up(place, shutil.which("cc") or shutil.which("c++"), is_small=is_small)
            try:
                yield Ground(cluster, place, machine, footage, folder)
            finally:
                for name in ("topic", "folder"):
                    with contextlib.suppress(OSError):
                        shutil.copy(manager.path(f"/run/{name}.log"), folder / f"{name}.log")
                with contextlib.suppress(OSError):
                    shutil.copytree(machine.folder.home, folder / "home", symlinks=True)


@asynccontextmanager
async def playing(
    ground: Ground, n_cameras: int, verdicts: dict[str, Verdict], *, is_short: bool
) -> AsyncIterator[Stage]:
    """Both instances run and cameras play to them; then all is told, and judged.

    Args:
        ground: Where.
        n_cameras: Half of them on the topic, half in the folder.
        verdicts: Instance → its events against those of a daemon that nothing disturbs; filled
            at the end.
        is_short: See ``Stage``.
    """
    place, machine = ground.place, ground.machine
    n_each = n_cameras // 2
    cameras = {
        "topic": cameras_over(CHUNK_PARTITIONS, n_each),
        "folder": [f"file-{number}" for number in range(n_each)],
    }
    links = {
        "topic": KafkaLink(place.bootstrap, place.chunks),
        "folder": FolderLink(machine.chunks, machine.make_folder),
    }
    feeders = {
        name: Feeder(link, ground.footage, cameras[name], name="run", is_live=True)
        for name, link in links.items()
    }
    stranger = Stranger(place.bootstrap, place.chunks)
    observer = Observer(ground.cluster, place.group, place.chunks, place.events)
    stage = Stage(machine, feeders, cameras, stranger, ground.footage, is_short)
    await asyncio.gather(machine.topic.start(), machine.folder.start())
    say("both daemons are ready")
    async with observer.looking_on(), stranger.sending():
        async with feeders["topic"].running(), feeders["folder"].running():
            yield stage
        say("all runs are ended; waiting until all is told")
        await _until_committed(ground, observer)
        await until(lambda: _is_read(machine, cameras["folder"]), "all files to be read")
    await asyncio.gather(machine.topic.stop(), machine.folder.stop())
    undisturbed = Undisturbed(ground.cluster, place.bundle, ground.folder, _UNDISTURBED_S)
    say("asking daemons that nothing disturbs")
    judged = await asyncio.gather(
        of_topic(ground.cluster, place, observer, stage, undisturbed),
        of_folder(ground.folder, place, stage),
    )
    verdicts.update(zip(("topic", "folder"), judged, strict=True))


async def _until_committed(ground: Ground, observer: Observer) -> None:
    ends = await ground.cluster.ends(ground.place.chunks)

    def is_committed() -> bool:
        done = {number: marks[-1].offset for number, marks in observer.committed.items()}
        return reaches(done, ends)

    await until(is_committed, "all records to be committed")


def _is_read(machine: Machine, cameras: Sequence[str]) -> bool:
    """True if all that cameras have sent is done, as the positions say."""
    return all(
        read_position(machine.chunks / POSITIONS / camera) == last_number(machine.chunks / camera)
        for camera in cameras
    )

"""The events of an instance against those of a daemon that nothing disturbs.

A fault may cost a struck camera the run that it is in. Those runs are not compared with anything,
but their events must have a proper life all the same.
"""

import asyncio
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from tests.faults.checker import Effect, Evidence, Verdict, check, finals_of
from tests.faults.cluster import Cluster, Observer
from tests.faults.daemons import Place, RowError, config_of
from tests.faults.undisturbed import Undisturbed
from tests.misery.faults import Stage
from tests.misery.judge import run_without_offset
from tests.misery.senders import MARK, copy_without_strangers
from tests.support.checkout import CHECKOUT


async def of_topic(
    cluster: Cluster, place: Place, seen: Observer, stage: Stage, undisturbed: Undisturbed
) -> Verdict:
    """Judge the instance that reads the topic."""
    if not await seen.read_to_the_end(60):
        raise RowError("a transaction hides records")
    cameras = {camera.encode() for camera in stage.cameras["topic"]}
    records = [
        record
        for record in await cluster.records(place.chunks)
        if record.key in cameras and MARK not in record.headers
    ]
    own = [
        record
        for record in records
        if (record.key.decode(), dict(record.headers).get("vc_epoch", b"").decode())
        not in stage.struck
    ]
    wanted = await undisturbed.finals(own)
    evidence = Evidence(
        effects=seen.effects,
        acknowledged=stage.feeders["topic"].acknowledged,
        committed=seen.committed,
        ended_s=asyncio.get_running_loop().time(),
        wanted=wanted,
    )
    return _judged(evidence, stage, "topic")


async def of_folder(folder: Path, place: Place, stage: Stage) -> Verdict:
    """Judge the instance that reads the folder."""
    cameras, machine = stage.cameras["folder"], stage.machine
    home = folder / "undisturbed-folder"
    await asyncio.to_thread(copy_without_strangers, machine.chunks, cameras, home / "chunks")
    config = {
        **config_of(place, home),
        "source": {"kind": "directory", "path": str(home / "chunks"), "follow": False},
        "sink": {"kind": "jsonl", "path": str(home / "events.jsonl")},
        "journal": {"kind": "local", "path": str(home / "journal.sqlite")},
    }
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["-m", "daemon", "run", "--config", str(home / "config.yaml")]
    with (home / "log").open("wb") as log:
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=log, stderr=log, cwd=CHECKOUT
        )
        if status := await daemon.wait():
            raise RowError(f"the undisturbed daemon exited with {status}: {home / 'log'}")
    told = [effect.record for effect in _effects(home / "events.jsonl")]
    finals = finals_of(
        record for record in told if (record["camera_id"], record["epoch"]) not in stage.struck
    )
    shutil.copy(machine.folder.home / "events.jsonl", folder / "events.jsonl")
    evidence = Evidence(_effects(folder / "events.jsonl"), {}, {}, 0.0, finals)
    return _judged(evidence, stage, "folder")


def _judged(evidence: Evidence, stage: Stage, instance: str) -> Verdict:
    """All effects must be proper; those of judged runs must be the wanted ones."""
    verdict = check(replace(evidence, wanted=None))
    judged = [effect for effect in evidence.effects if _is_judged(effect, stage, instance)]
    against = check(Evidence(judged, {}, {}, 0.0, evidence.wanted))
    verdict.lost, verdict.foreign, verdict.differing = (
        *(against.lost, against.foreign, against.differing),
    )
    verdict.examples += [
        example
        for example in against.examples
        if example.partition(":")[0] in ("lost", "foreign", "differing")
    ]
    verdict.events = against.events
    return verdict


def _is_judged(effect: Effect, stage: Stage, instance: str) -> bool:
    record = effect.record
    if record is None:
        return True
    run = run_without_offset(record["epoch"])
    is_ours = record["camera_id"] in stage.cameras[instance] and run.startswith("run-")
    return is_ours and (record["camera_id"], run) not in stage.struck


def _effects(path: Path) -> list[Effect]:
    lines = path.read_bytes().splitlines()
    return [Effect(0, number, 0.0, json.loads(line)) for number, line in enumerate(lines)]

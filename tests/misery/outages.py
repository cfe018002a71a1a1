"""``python -m tests.misery.outages``: what a daemon needs is away for long, and it waits.

Two instances of the shipped unit run under a systemd manager of their own, and cameras play to
them. The broker is away, a disk is full, a right is missing; and each once more, when the daemon
is told to stop meanwhile. It must say so in /readyz and in systemd's status all the time, heal by
itself, log little, stop in time, and tell the same events as daemons that nothing disturbs.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.faults.bench import end_on_sigterm, say
from tests.faults.checker import Verdict
from tests.faults.cluster import calm_clients
from tests.misery.ground import EXPECTED_ERRORS, Ground, a_ground, playing
from tests.misery.machine import Instance, until
from tests.misery.outage_report import Outage, Seen, outage_page
from tests.misery.report import wrong_events
from tests.support.secured_kafka import ALL, ALLOW, DENY, TOPIC, WRITE, ruled
from tests.support.small_disk import fill
from tests.support.systemd import why_no_manager

_WARM_S, _LOOK_S = 20.0, 1.0
# Cameras live on whatever is away: that their runs begin and end tells nothing of the outage.
_OF_CAMERAS = ("stream.", "event.")
# Anybody may do anything, until there is a rule for it.
_RULED = {
    "authorizer_class_name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow_everyone_if_no_acl_found": "true",
}


@asynccontextmanager
async def _no_broker(ground: Ground) -> AsyncIterator[None]:
    broker = ground.cluster.broker
    broker.signal(signal.SIGKILL)
    yield
    await asyncio.to_thread(broker.start)


@asynccontextmanager
async def _full_disk(ground: Ground) -> AsyncIterator[None]:
    filler = await asyncio.to_thread(fill, ground.machine.folder.home)
    yield
    filler.unlink()


@asynccontextmanager
async def _no_right(ground: Ground) -> AsyncIterator[None]:
    address, events = ground.place.bootstrap, ground.place.events
    async with (
        ruled(address, "ANONYMOUS", TOPIC, events, ALL, ALLOW),
        ruled(address, "ANONYMOUS", TOPIC, events, WRITE, DENY),
    ):
        yield


OUTAGES = (
    Outage("broker away", "topic", "broker", _no_broker, 600, 30),
    Outage("disk full", "folder", "disk", _full_disk, 300, 30),
    Outage("right to write taken away", "topic", "broker", _no_right, 120, 20),
)


def main() -> int:
    """Run, and give the exit status: 0 if all rules hold."""
    options = _options()
    if (reason := why_no_manager()) is not None:
        say(reason)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="s2netd-outages-"))
    seen: list[Seen] = []
    verdicts: dict[str, Verdict] = {}
    complaints: list[str] = []
    try:
        asyncio.run(_run(options, folder, seen, verdicts))
    except (KeyboardInterrupt, asyncio.CancelledError):
        complaints.append("interrupted before its time")
    except EXPECTED_ERRORS as error:
        complaints.append(f"{type(error).__name__}: {str(error)[:500]}")
    complaints += [what for each in seen for what in each.complaints()]
    for name, verdict in verdicts.items():
        complaints += [f"{name}: {what}" for what in wrong_events(verdict)]
    page = outage_page(seen, verdicts, complaints)
    options.report.write_text("\n".join([*page, ""]), encoding="utf-8")
    if complaints or options.keep:
        say(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    for complaint in complaints:
        say(f"    {complaint}")
    say(f"report: {options.report}; {'FAILED' if complaints else 'passed'}")
    return int(bool(complaints))


async def _run(
    options: argparse.Namespace, folder: Path, seen: list[Seen], verdicts: dict[str, Verdict]
) -> None:
    end_on_sigterm()
    calm_clients()
    async with (
        a_ground(folder, is_small=True, **_RULED) as ground,
        playing(ground, options.cameras, verdicts, is_short=options.short),
    ):
        await asyncio.sleep(_WARM_S)
        for outage in OUTAGES:
            length_s = outage.short_s if options.short else outage.length_s
            seen.append(Seen(outage, length_s))
            await _inflict(seen[-1], ground)


async def _inflict(seen: Seen, ground: Ground) -> None:
    """Twice: for long, and with a stop meanwhile."""
    outage = seen.outage
    instance: Instance = getattr(ground.machine, outage.instance)
    say(f"{outage.name} for {seen.length_s:.0f} s")
    logged = instance.n_logged()
    async with outage.away(ground):
        seen.noticed_s = await _until_said(instance, outage)
        await _look_on(instance, seen)
    seen.healed_s = await _until_ready(instance)
    seen.n_lines = sum(
        not str(line.get("event")).startswith(_OF_CAMERAS) for line in instance.logged(logged)
    )
    say(f"    noticed after {seen.noticed_s:.0f} s, {seen.n_looks} looks, {seen.n_lines} lines")
    async with outage.away(ground):
        await _until_said(instance, outage)
        began_s = time.monotonic()
        await instance.stop()
        seen.stopped_s = time.monotonic() - began_s
        seen.result = await asyncio.to_thread(instance.shown, "Result")
    await instance.start()
    await _until_ready(instance)
    say(f"    stopped within {seen.stopped_s:.1f} s: {seen.result}")


async def _until_said(instance: Instance, outage: Outage) -> float:
    """Wait until /readyz, /livez and systemd all tell of it."""
    began_s = time.monotonic()
    what = f"{instance.name} to say that it waits for the {outage.waits_for}"
    await until(lambda: _untrue(instance, outage.waits_for) is None, what)
    return time.monotonic() - began_s


async def _until_ready(instance: Instance) -> float:
    began_s = time.monotonic()
    await until(lambda: bool(instance.asked("/readyz").get("ready")), f"{instance.name} ready")
    return time.monotonic() - began_s


async def _look_on(instance: Instance, seen: Seen) -> None:
    """Ask it how it is, until it has been away for long enough."""
    end_s = time.monotonic() + seen.length_s - seen.noticed_s
    while time.monotonic() < end_s:
        untrue = await asyncio.to_thread(_untrue, instance, seen.outage.waits_for)
        seen.n_looks += 1
        if untrue is not None:
            seen.untrue.append(untrue)
        await asyncio.sleep(_LOOK_S)


def _untrue(instance: Instance, waits_for: str) -> str | None:
    """What it says that is not so."""
    ready, live = instance.asked("/readyz"), instance.asked("/livez")
    status, state = instance.shown("StatusText"), instance.shown("ActiveState")
    if ready.get("ready", True) or waits_for not in _waits_for(ready):
        return f"/readyz says {ready}"
    if not live.get("live"):
        return f"/livez says {live}"
    if f"waiting for {waits_for}" not in status or state != "active":
        return f"systemd says {state}: {status}"
    return None


def _waits_for(ready: Mapping[str, Any]) -> list[str]:
    return [each["for"] for each in ready.get("waiting", [])]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.misery.outages", description=__doc__)
    parser.add_argument("--short", action="store_true", help="half a minute each")
    parser.add_argument("--cameras", type=int, default=8, help="of topic and folder together")
    parser.add_argument("--report", type=Path, default=Path("reports/outages.md"))
    parser.add_argument("--keep", action="store_true", help="keep logs even if all rules hold")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

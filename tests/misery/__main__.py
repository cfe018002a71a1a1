"""``python -m tests.misery``: cameras play while each fault of a table happens.

Two instances of the shipped unit run under a systemd manager of their own; one reads a topic, the
other a folder of chunks. Each fault must be told by a metric and by a log line, the events of all
runs that no fault may cost must be those of daemons that nothing disturbs, and what the instances
take must not grow from one round of faults to the next.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.bench import end_on_sigterm, say
from tests.faults.cluster import calm_clients
from tests.faults.daemons import RowError
from tests.misery.faults import FAULTS, TOLD_WITHIN_S, Fault, Stage
from tests.misery.ground import EXPECTED_ERRORS, a_ground, playing
from tests.misery.judge import level
from tests.misery.machine import Machine, until
from tests.misery.report import Misery, Sample, Told, write_report
from tests.support.systemd import why_no_manager

WARM_S, QUIET_S = 20.0, 20.0
_LOOK_S = 2.0


def main() -> int:
    """Run, and give the exit status: 0 if all rules hold."""
    options = _options()
    if (reason := why_no_manager()) is not None:
        say(reason)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="s2netd-misery-"))
    misery = Misery(sys.argv[1:], options.cameras)
    try:
        asyncio.run(_run(options, folder, misery))
    except (KeyboardInterrupt, asyncio.CancelledError):
        misery.complaints.append("interrupted before its time")
    except EXPECTED_ERRORS as error:
        misery.complaints.append(f"{type(error).__name__}: {str(error)[:500]}")
    write_report(misery, options.report)
    if misery.complaints or options.keep:
        say(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    for complaint in misery.complaints:
        say(f"    {complaint}")
    say(f"report: {options.report}; {'FAILED' if misery.complaints else 'passed'}")
    return int(bool(misery.complaints))


async def _run(options: argparse.Namespace, folder: Path, misery: Misery) -> None:
    end_on_sigterm()
    calm_clients()
    async with a_ground(folder) as ground:
        machine = ground.machine
        async with (
            playing(ground, options.cameras, misery.verdicts, is_short=options.short) as stage,
            _watched(machine, misery),
        ):
            await asyncio.sleep(WARM_S)
            await _rounds(options, stage, misery)
        for instance in (machine.topic, machine.folder):
            misery.longest_line[instance.name] = instance.longest_line()
            misery.restarts[instance.name] = await instance.n_restarts()
    misery.judge()


async def _rounds(options: argparse.Namespace, stage: Stage, misery: Misery) -> None:
    end_s = time.monotonic() + (0 if options.short else options.minutes * 60 - WARM_S)
    while stage.round == 0 or time.monotonic() < end_s:
        for fault in FAULTS:
            if _is_left_out(fault.name, options):
                continue
            misery.told.append(await _inflict(fault, stage))
        await asyncio.sleep(options.rest)
        since_s = misery.samples[-1].at_s if misery.samples else 0.0
        await asyncio.sleep(QUIET_S)
        quiet = [sample for sample in misery.samples if sample.at_s > since_s]
        misery.levels.append(
            {name: level([sample.of(name) for sample in quiet]) for name in stage.cameras}
        )
        stage.round += 1


def _is_left_out(fault: str, options: argparse.Namespace) -> bool:
    is_wanted = options.only is None or re.search(options.only, fault)
    return not is_wanted or (options.skip is not None and bool(re.search(options.skip, fault)))


async def _inflict(fault: Fault, stage: Stage) -> Told:
    """Do it, and wait until a metric and a log line tell of it."""
    instance = getattr(stage.machine, fault.instance)
    metric, line = fault.metric(stage), fault.line(stage)
    told = Told(fault.name, fault.instance, stage.round, str(metric), str(line))
    if fault.needs_hang and not stage.machine.can_hang:
        told.skipped = "no C compiler"
        return told
    say(f"round {stage.round}: {fault.name}")
    logged, before = instance.n_logged(), metric.of(await asyncio.to_thread(instance.metrics))
    is_comparable = not fault.restarts
    if fault.restarts:
        before = 0  # whoever is started anew counts from there

    def look() -> bool:
        if not is_comparable:
            return False
        if told.delta < fault.least:
            with contextlib.suppress(OSError):  # it may be started anew
                told.delta = max(told.delta, metric.of(instance.metrics()) - before)
        if not told.is_logged:
            told.is_logged = line.is_in(instance.logged(logged))
        return told.delta >= fault.least and told.is_logged

    watching = asyncio.create_task(until(look, fault.name, TOLD_WITHIN_S, look_s=0.5))
    try:
        await fault.inject(stage)
        is_comparable = True
        await watching
    except RowError as error:
        told.failure = str(error)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    say(f"    {told.summary}")
    return told


@contextlib.asynccontextmanager
async def _watched(machine: Machine, misery: Misery) -> AsyncIterator[None]:
    began_s = time.monotonic()

    async def watch() -> None:
        while True:
            usages = await asyncio.to_thread(
                lambda: (machine.topic.usage(), machine.folder.usage())
            )
            misery.samples.append(Sample(time.monotonic() - began_s, *usages))
            await asyncio.sleep(_LOOK_S)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.misery", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one round, 6 cameras")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--cameras", type=int, help="of topic and folder together")
    parser.add_argument("--only", help="only faults whose name this pattern finds")
    parser.add_argument("--skip", help="faults whose name this pattern finds")
    parser.add_argument("--rest", type=float, default=15.0, help="seconds between rounds")
    parser.add_argument("--report", type=Path, default=Path("reports/misery.md"))
    parser.add_argument("--keep", action="store_true", help="keep logs even if all rules hold")
    options = parser.parse_args()
    options.cameras = options.cameras or (6 if options.short else 16)
    return options


if __name__ == "__main__":
    sys.exit(main())

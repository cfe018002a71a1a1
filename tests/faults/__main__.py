"""``python -m tests.faults --rows 1,6,10``: the rows, one after the other, and the report."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from aiokafka.errors import KafkaError

from engine.errors import S2netdError
from tests.faults.bench import end_on_sigterm, say
from tests.faults.checker import Verdict
from tests.faults.cluster import a_cluster, calm_clients
from tests.faults.daemons import RowError
from tests.faults.feeder import make_footage
from tests.faults.report import a_line, write_report
from tests.faults.rows import ROWS
from tests.faults.trial import Rig, RowResult
from tests.faults.undisturbed import Undisturbed
from tests.support.tiny_bundle import write_tiny_bundle


def main() -> int:
    """Run, and give the exit status: 0 if every row passed."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="s2netd-faults-"))
    results: list[RowResult] = []
    try:
        asyncio.run(_run(options, folder, results))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted")
    write_report(results, options.report, is_full=options.full)
    passed = bool(results) and all(result.passed for result in results)
    if passed and not options.keep:
        shutil.rmtree(folder)
    else:
        say(f"logs: {folder}")
    say(f"report: {options.report}")
    return 0 if passed and len(results) == len(options.rows) else 1


async def _run(options: argparse.Namespace, folder: Path, results: list[RowResult]) -> None:
    end_on_sigterm()
    calm_clients()
    bundle = write_tiny_bundle(folder / "bundle")
    footage = make_footage(folder)
    async with a_cluster(folder / "kafka") as cluster:
        undisturbed = Undisturbed(cluster, bundle, folder)
        rig = Rig(cluster, bundle, footage, undisturbed, folder, is_full=options.full)
        for number in options.rows:
            say(f"row {number} ...")
            began_s = time.monotonic()
            try:
                result = await ROWS[number](rig)
            except (RowError, TimeoutError, OSError, KafkaError, S2netdError) as error:
                result = _unfinished(number, error)
                result.seconds = time.monotonic() - began_s
            results.append(result)
            write_report(results, options.report, is_full=options.full)
            say(a_line(result))
            for what in (*result.complaints, *result.notes, *result.verdict.examples):
                say(f"    {what}")


def _unfinished(number: int, error: Exception) -> RowResult:
    result = RowResult(number, "not brought to its end; counts so far", 0, None, Verdict())
    result.complaints.append(f"{type(error).__name__}: {error}")
    if isinstance(error, RowError):
        result.verdict, result.injected = error.verdict, error.injected
        result.notes += error.notes
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rows", type=_numbers, default=list(ROWS), help="as 1,6,10; default all")
    is_full = os.environ.get("FAULTS_SCALE") == "full"
    parser.add_argument("--full", action="store_true", default=is_full, help="hundreds of faults")
    parser.add_argument("--report", type=Path, default=Path("reports/faults.md"))
    parser.add_argument("--keep", action="store_true", help="keep logs even if all rows passed")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.replace(",", " ").split()]
    unknown = [number for number in numbers if number not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such rows: {unknown}; there are {list(ROWS)}")
    return numbers


if __name__ == "__main__":
    sys.exit(main())

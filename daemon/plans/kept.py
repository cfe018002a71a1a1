"""`s2netd engine list` and `s2netd engine gc`: show the plans that are kept, and delete plans."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daemon.plans.build import MB, batches
from daemon.plans.machine import Machine
from engine.backends.tensorrt.plan_cache import PlanCache, PlanEntry, PlanKey, TimingsKey

_SHORT = 12
_RUNTIME_WIDTH = len("tensorrt_rtx 1.17.1.116")
_DAY_S = timedelta(days=1).total_seconds()


def run_list(
    cache: PlanCache, machine: Machine, now_s: float, console: Console, *, as_json: bool = False
) -> None:
    """Print the plans that are kept.

    Args:
        cache: Where the plans are.
        machine: Tells which of them can be used here.
        now_s: The time, in seconds since 1970.
        console: Shows the result.
        as_json: Print JSON instead of a table.

    Raises:
        DeviceError: The cache folder cannot be read.
    """
    entries = cache.entries()
    if as_json:
        console.print_json(json.dumps([_to_json(entry, machine) for entry in entries]))
        return
    if not entries:
        console.print(f"no plans in {cache.folder}: s2netd engine build", markup=False)
        return
    console.print(_table([_row(entry, machine, now_s) for entry in entries]))
    total = sum(entry.n_bytes for entry in entries) / MB
    console.print(f"{len(entries)} files, {total:.1f} MB in {cache.folder}", markup=False)


def run_gc(
    cache: PlanCache,
    machine: Machine,
    now_s: float,
    console: Console,
    *,
    everything: bool = False,
    older_than_days: float | None = None,
    dry_run: bool = False,
) -> None:
    """Delete plans that this machine cannot use, and damaged files; print each one.

    Args:
        cache: Where the plans are.
        machine: Tells which of them can be used here.
        now_s: The time, in seconds since 1970.
        console: Shows the result.
        everything: Delete every plan.
        older_than_days: Also delete plans that were not loaded for so many days.
        dry_run: Delete nothing; only print what would be deleted.

    Raises:
        DeviceError: The cache folder cannot be read, or a file cannot be deleted.
    """

    def reason(entry: PlanEntry) -> str:
        use, why = machine.use(entry)
        unused_days = (now_s - entry.used_at_s) / _DAY_S
        if use == "foreign":
            return why
        if older_than_days is not None and unused_days > older_than_days:
            return f"not used for {unused_days:.0f} days"
        return "all go" if everything else ""

    gone = cache.collect(lambda entry: bool(reason(entry)), dry_run=dry_run)
    for entry in gone:
        console.print(f"{_name(entry)}: {reason(entry)}", markup=False, soft_wrap=True)
    verb = "would delete" if dry_run else "deleted"
    console.print(f"{verb} {len(gone)} files, {_mb(gone)} MB in {cache.folder}", markup=False)
    kept = [entry for entry in cache.entries() if machine.use(entry)[0] == "unknown"]
    if kept and not dry_run:
        console.print(
            f"kept {len(kept)} files, {_mb(kept)} MB, that nothing seen here now can use "
            f"({machine.use(kept[0])[1]}): --all deletes them too",
            markup=False,
            soft_wrap=True,
        )


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    """A table that fits 80 columns, with kind and version of a TensorRT on one line."""
    table = Table(show_lines=True)
    table.add_column("network", overflow="fold")
    table.add_column("built for", overflow="fold", width=_RUNTIME_WIDTH)
    for heading in ("MB", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("here", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _row(entry: PlanEntry, machine: Machine, now_s: float) -> tuple[str, ...]:
    use, why = machine.use(entry)
    key = entry.key
    about = f"\n{key.precision}, batches {batches(key)}" if isinstance(key, PlanKey) else ""
    is_small = isinstance(key, TimingsKey)
    return (
        _name(entry) + about,
        f"{key.tensorrt}\n{key.gpu}" if key else "",
        f"{entry.n_bytes / MB:.3f}" if is_small else f"{entry.n_bytes / MB:.1f}",
        _age(now_s - entry.built_at_s),
        why or use,
    )


def _name(entry: PlanEntry) -> str:
    if isinstance(entry.key, PlanKey):
        return f"{entry.network} {entry.key.onnx_sha256[:_SHORT]}".lstrip()
    return "kernel timings" if entry.key else entry.path.name


def _age(seconds: float) -> str:
    hours, days = max(seconds, 0) / 3600, max(seconds, 0) / _DAY_S
    return f"{days:.0f} d" if days >= 2 else f"{hours:.0f} h" if hours >= 1 else "new"  # noqa: PLR2004


def _mb(entries: Sequence[PlanEntry]) -> str:
    return f"{sum(entry.n_bytes for entry in entries) / MB:.1f}"


def _to_json(entry: PlanEntry, machine: Machine) -> dict[str, Any]:
    use, why = machine.use(entry)
    key = entry.key
    return {
        "file": str(entry.path),
        "bytes": entry.n_bytes,
        "kind": "damaged" if key is None else "plan" if isinstance(key, PlanKey) else "timings",
        "tensorrt": key.tensorrt if key else None,
        "gpu": str(key.gpu) if key else None,
        "network": entry.network or None,
        "onnx_sha256": key.onnx_sha256 if isinstance(key, PlanKey) else None,
        "precision": key.precision if isinstance(key, PlanKey) else None,
        "batch_sizes": [p.batch_size for p in key.profiles] if isinstance(key, PlanKey) else None,
        "built_at_s": entry.built_at_s,
        "used_at_s": entry.used_at_s,
        "use": use,
        "why": why,
    }

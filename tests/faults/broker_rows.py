"""A broker that stops, dies and hangs: rows 11 to 14."""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.daemons import SESSION_S
from tests.faults.trial import Rig, RowResult, Trial, a_trial

TRANSACTION_S = 10.0  # the longest that a transaction may stay open
_SLACK_S = 1.0  # for the broker, which looks for late transactions now and then
BACK_S = 10.0


@dataclass(frozen=True, slots=True)
class _Outage:
    """How long a broker was away, its start included, and how long progress took after that."""

    away_s: float
    took_s: float


async def kill_in_a_transaction(rig: Rig) -> RowResult:
    """Row 11: SIGKILL between begin and commit, for good; what others wrote must be readable."""
    async with a_trial(rig, 11) as trial:
        a, b = trial.daemon("a"), trial.daemon("b")
        b.start()
        await b.ready()
        point = "commit_transaction:before"
        a.start(f"{point}:12:kill")
        await a.ready()
        await trial.begin_to_feed()
        if await a.struck(60):
            await a.gone()
        else:
            trial.complaints.append(f"{point} was not reached")
            await a.kill()
        trial.injected += 1
        killed_s = asyncio.get_running_loop().time()
        await trial.progress(4)
        result = await trial.finish("SIGKILL between begin and commit, for good", SESSION_S + 2)
        served = {line["camera"] for line in a.logged("stream.opened")}
        _judge_readers(trial, set(trial.cameras) - served, killed_s)
        return result


def _judge_readers(trial: Trial, others: set[str], since_s: float) -> None:
    """Nothing may be hidden from readers for longer than a transaction may take."""
    longest = 0.0
    for partition in {effect.partition for effect in trial.observer.effects}:
        seen = [
            effect.seen_s
            for effect in trial.observer.effects
            if effect.partition == partition
            and effect.record
            and effect.record["camera_id"] in others
            and effect.seen_s >= since_s
        ]
        times = [since_s, *seen]
        longest = max([longest, *(b - a for a, b in pairwise(times))])
    trial.notes.append(f"readers of other cameras waited for {longest:.1f} s at the most")
    if longest > TRANSACTION_S + _SLACK_S:
        trial.complaints.append(f"readers of other cameras waited for {longest:.1f} s")


async def lose_the_broker(rig: Rig) -> RowResult:
    """Row 12: stop, SIGKILL and SIGSTOP of the broker, under load."""
    async with a_trial(rig, 12) as trial:
        a, b = await trial.begin("a", "b")
        a.supervise()
        b.supervise()
        await trial.progress(2)
        lengths_s = [*(5, 15, 20, 60) * 5, 300] if rig.is_full else [5, 20]
        outages: list[tuple[str, _Outage]] = []
        for length_s in lengths_s:
            for how in ("stop", "SIGKILL", "SIGSTOP"):
                outage = await _away(trial, how, length_s)
                outages.append((f"{how} {length_s} s", outage))
        _judge_outages(trial, outages, BACK_S)
        told = ", ".join(map(str, dict.fromkeys(lengths_s)))
        fault = f"broker stopped, killed and hung for {told} s"
        longest_s = max(outage.away_s for _, outage in outages)
        return await trial.finish(fault, round(longest_s + BACK_S, 1))


def _judge_outages(trial: Trial, outages: Sequence[tuple[str, _Outage]], bound_s: float) -> None:
    told = ", ".join(f"{name}: {outage.took_s:.1f} s" for name, outage in outages)
    trial.notes.append(f"from the broker's return to progress everywhere: {told}")
    late = [name for name, outage in outages if outage.took_s > bound_s]
    if late:
        trial.complaints.append(f"slower than {bound_s:g} s after: {', '.join(late)}")


async def _away(trial: Trial, how: str, length_s: float) -> _Outage:
    """The broker is away for so long; waits until every partition has read its backlog."""
    broker = trial.cluster.broker
    began_s = asyncio.get_running_loop().time()
    trial.injected += 1
    if how == "SIGSTOP":
        broker.signal(signal.SIGSTOP)
        await trial.play(length_s)
        broker.signal(signal.SIGCONT)
    else:
        if how == "stop":
            await asyncio.to_thread(broker.run, "stop")
        else:
            broker.signal(signal.SIGKILL)
        await trial.play(length_s)
        await asyncio.to_thread(broker.start)
    back_s = asyncio.get_running_loop().time()
    await trial.progress()
    took_s = asyncio.get_running_loop().time() - back_s
    await trial.get_through()
    return _Outage(back_s - began_s, took_s)


async def lose_the_broker_for_long(rig: Rig) -> RowResult:
    """Row 13: the broker is away for longer than daemons are patient; the unit restarts them."""
    async with a_trial(rig, 13) as trial:
        (a,) = await trial.begin("a")
        a.supervise()
        await trial.progress(2)
        length_s = rig.size(75, 900)
        outage = await _away(trial, "SIGKILL", length_s)
        _judge_outages(trial, [(f"SIGKILL {length_s} s", outage)], 30)
        fault = f"broker away for {length_s} s under the unit's rules"
        return await trial.finish(fault, round(outage.away_s + 30, 1))


async def lose_broker_and_daemon(rig: Rig) -> RowResult:
    """Row 14: a broker that hangs during a fail-over, and one that restarts in a take-over."""
    async with a_trial(rig, 14) as trial:
        a, b = await trial.begin("a", "b")
        b.supervise()
        await trial.progress(3)
        await a.kill()
        trial.injected += 1
        await trial.play(SESSION_S - 2)
        stopped = await _away(trial, "stop", 1)
        c = trial.daemon("c")
        c.start()
        trial.injected += 1
        await c.ready()
        c.supervise()
        await b.stop()
        trial.injected += 1
        hung = await _away(trial, "SIGSTOP", 20)
        _judge_outages(trial, [("restart", stopped), ("SIGSTOP 20 s", hung)], SESSION_S + 15)
        return await trial.finish(
            "broker restarted in a take-over, and hung for 20 s in a fail-over", SESSION_S + 15
        )

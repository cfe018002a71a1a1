"""Members of the group that come, go, die, freeze and return: rows 1 to 11, 20, 23 and 25."""

import signal

from tests.faults.daemons import SESSION_S, Daemon
from tests.faults.faulty_daemon import POINTS
from tests.faults.topic_rows import judge_reread
from tests.faults.trial import Rig, RowResult, Trial, a_trial

RESTART_BOUND_S = 15.0  # a daemon's start on two busy cores, and reading a resume window
_REACH_S = 30.0  # a point that was not reached by then is not on the daemon's way


def _owners(trial: Trial) -> dict[str, set[str]]:
    """Daemon → cameras that it has served."""
    return {
        name: {
            line["camera"]
            for event in ("stream.opened", "stream.restored")
            for line in daemon.logged(event)
        }
        for name, daemon in trial.daemons.items()
    }


def _judge_apart(trial: Trial, result: RowResult) -> None:
    """Tell faults of cameras that moved from those of cameras that stayed."""
    served = [cameras for cameras in _owners(trial).values() if cameras]
    moved = {c for c in trial.cameras if sum(c in cameras for cameras in served) > 1}
    stayed = set(trial.cameras) - moved
    for what, cameras in (("moved", moved), ("stayed", stayed)):
        n_faults = sum(result.verdict.by_camera[camera] for camera in cameras)
        trial.notes.append(f"{len(cameras)} cameras {what}, with {n_faults} faults of P2 to P5")


async def join(rig: Rig) -> RowResult:
    """Row 1: daemons join one after the other while events are open."""
    async with a_trial(rig, 1) as trial:
        await trial.begin("a")
        await trial.progress(6)
        for name in ("b", "c"):
            newcomer = trial.daemon(name)
            newcomer.start()
            trial.injected += 1
            await newcomer.ready()
            await trial.progress(8)
        result = await trial.finish("join 1 → 2 → 3", 5)
        _judge_apart(trial, result)
        return result


async def leave(rig: Rig) -> RowResult:
    """Row 2: SIGTERM for good, three become one."""
    async with a_trial(rig, 2) as trial:
        a, b, _c = await trial.begin("a", "b", "c")
        await trial.progress(6)
        for leaver in (a, b):
            trial.injected += 1
            status = await leaver.stop()
            trial.notes.append(f"{leaver.name} left with status {status}")
            await trial.progress(6)
        return await trial.finish("leave for good by SIGTERM 3 → 2 → 1", 5)


async def die(rig: Rig) -> RowResult:
    """Row 3: SIGKILL of one of two, for good."""
    async with a_trial(rig, 3) as trial:
        a, _b = await trial.begin("a", "b")
        await trial.progress(6)
        await a.kill()
        trial.injected += 1
        await trial.progress(6)
        return await trial.finish("SIGKILL of one of two, for good", SESSION_S + 2)


async def return_from_the_dead(rig: Rig) -> RowResult:
    """Row 4: the dead one returns after the take-over, with its old folder."""
    async with a_trial(rig, 4) as trial:
        a, _b = await trial.begin("a", "b")
        await trial.progress(6)
        await a.kill()
        trial.injected += 1
        await trial.progress(3)
        a.start(tells_fetched=True)
        await a.ready()
        await trial.progress(8)
        judge_reread(trial, a)
        return await trial.finish(
            "SIGKILL, take-over, and the dead one returns with its old folder", SESSION_S + 7
        )


async def fail_over(rig: Rig) -> RowResult:
    """Row 5: to another host and back."""
    async with a_trial(rig, 5) as trial:
        (a,) = await trial.begin("a")
        await trial.progress(6)
        away_s = 70 if rig.is_full else 20
        await a.stop()
        b = trial.daemon("b")
        b.start()
        trial.injected += 1
        await b.ready()
        await trial.progress(away_s)
        await b.stop()
        a.start()
        trial.injected += 1
        await a.ready()
        await trial.progress(6)
        return await trial.finish(f"fail over to another host for {away_s} s, and back", 10)


# "network": it is not frozen but cut off, so it works on and does not know that it was given up.
ZOMBIE_POINTS = ("random", "network", "produce", "commit_transaction", "begin", "offsets")


async def zombie(rig: Rig, *, unfenced: bool = False, row: int = 6) -> RowResult:
    """Row 6: frozen until long after another took over, and thawed."""
    async with a_trial(rig, row) as trial:
        a, b = trial.daemon("a", is_cuttable=True), trial.daemon("b")
        # An open transaction is aborted when its time is out; one that is yet to begin is not.
        points = ["begin"] if unfenced else ZOMBIE_POINTS
        rounds = rig.size(2 if unfenced else len(points), 10)
        faults = [points[number % len(points)] for number in range(rounds)]
        b.start(unfenced=unfenced)
        await _start_zombie(trial, a, faults[0], unfenced=unfenced)
        await b.ready()
        await a.ready()
        b.supervise()
        await trial.begin_to_feed()
        for number, point in enumerate(faults):
            if number:
                await a.stop()
                await _start_zombie(trial, a, point, unfenced=unfenced)
                await a.ready()
                await trial.progress(3)
            await _freeze_and_thaw(trial, a, point)
        return await trial.finish(
            f"zombie: away for {SESSION_S + 15:g} s at {', '.join(dict.fromkeys(faults))}, "
            f"{rounds} rounds",
            SESSION_S + 2,
        )


async def unfenced_zombie(rig: Rig) -> RowResult:
    """Row 25: row 6 without fencing, which must fail: else the checker or the row sees nothing."""
    result = await zombie(rig, unfenced=True, row=25)
    result.fault = f"row 6 with producers that nobody fences: {result.fault}"
    result.expects_failure = True
    if not {"P2", "P3", "P5"} & set(result.broken):
        result.complaints.append("a zombie's records were not seen, although nothing fenced it")
        result.expects_failure = False
    return result


async def _start_zombie(trial: Trial, daemon: Daemon, point: str, *, unfenced: bool) -> None:
    when = "before" if unfenced else trial.rng.choice(("before", "after"))
    fault = (
        None
        if point in ("random", "network")
        else f"{point}:{when}:{trial.rng.randint(6, 20)}:stop"
    )
    daemon.start(fault, unfenced=unfenced)


async def _freeze_and_thaw(trial: Trial, daemon: Daemon, point: str) -> None:
    if point not in ("random", "network") and not await daemon.struck(_REACH_S):
        trial.notes.append(f"{point} was not reached, so it was stopped at a random moment")
        point = "random"
    if point in ("random", "network"):
        await trial.play(trial.rng.uniform(2, 5))
    if point == "network":
        trial.cluster.network.cut()
    elif point == "random":
        daemon.signal(signal.SIGSTOP)
    trial.injected += 1
    await trial.play(SESSION_S + 15)
    n_ready = len(daemon.logged("daemon.ready"))
    trial.cluster.network.heal()
    daemon.signal(signal.SIGCONT)
    await trial.play(10)
    status = daemon.status()
    how = "went on" if status is None else f"exited with {status}"
    trial.notes.append(f"after the fault at {point}, the zombie {how}")
    if status is not None:
        daemon.start()
        await daemon.until(lambda: len(daemon.logged("daemon.ready")) > n_ready, "ready again")
    await trial.progress(2)


async def storm(rig: Rig) -> RowResult:
    """Row 7: joins and leaves before the one before has settled."""
    async with a_trial(rig, 7) as trial:
        await trial.begin("a", "b")
        await trial.progress(3)
        turns = rig.size(4, 6)
        for number in range(turns):
            if number % 2 == 0:
                newcomer = trial.daemon(f"guest-{number}")
                newcomer.start()
                await newcomer.ready()
            else:
                await trial.daemons[f"guest-{number - 1}"].stop()
            trial.injected += 1
            await trial.play(trial.rng.uniform(7, 12))
        return await trial.finish(f"storm: {turns} joins and leaves 7 to 12 s apart", 10)


async def roll(rig: Rig) -> RowResult:
    """Row 8: each of three is stopped and started again."""
    async with a_trial(rig, 8) as trial:
        daemons = await trial.begin("a", "b", "c")
        await trial.progress(4)
        for daemon in daemons:
            await daemon.stop()
            daemon.start()
            trial.injected += 1
            await daemon.ready()
            await trial.progress(2)
        return await trial.finish("rolling restart of three", 10)


async def two_of_one_name(rig: Rig) -> RowResult:
    """Row 9: two daemons with one instance name."""
    async with a_trial(rig, 9) as trial:
        (a,) = await trial.begin("a", group_instance_id="twin")
        a.supervise()
        await trial.progress(4)
        b = trial.daemon("b", group_instance_id="twin")
        b.start()
        b.supervise()
        trial.injected += 1
        await trial.play(25)
        starts = a.starts + b.starts
        told = [d.name for d in (a, b) if "twin" in d.log.read_text(errors="replace")]
        trial.notes.append(f"{starts} starts of the two in 25 s; the name is told by {told}")
        if starts > 4:
            trial.complaints.append(f"flapping: {starts} starts")
        if not told:
            trial.complaints.append("no line names the instance")
        if a.status() is None and b.status() is None:
            await b.stop()  # as the operator must, where neither gives way
        return await trial.finish("two daemons with one instance name", 10)


async def kill_at_points(rig: Rig) -> RowResult:
    """Row 10: SIGKILL at random moments and at labelled points, and a restart at once."""
    async with a_trial(rig, 10) as trial:
        (daemon,) = await trial.begin("a")
        await trial.progress(2)
        for _ in range(rig.size(8, 40)):
            await trial.play(trial.rng.uniform(0, 2.5))
            await daemon.kill()
            trial.injected += 1
            daemon.start()
            await daemon.ready()
        places = [(point, when) for point in POINTS for when in ("before", "after")]
        unreached = [
            f"{point}:{when}"
            for point, when in places * rig.size(1, 3)
            if not await _killed_at(trial, daemon, point, when)
        ]
        await daemon.kill()
        daemon.start()
        await daemon.ready()
        if unreached:
            trial.complaints.append(f"not reached: {', '.join(dict.fromkeys(unreached))}")
        return await trial.finish("SIGKILL at random moments and labelled points", RESTART_BOUND_S)


async def _killed_at(trial: Trial, daemon: Daemon, point: str, when: str) -> bool:
    """Start anew with a fault at a point; False if it is never reached."""
    await daemon.kill()
    early = point == "producer_start"
    number = 1 if early else trial.rng.randint(1, 12)
    daemon.start(f"{point}:{when}:{number}:kill")
    if not await daemon.struck(_REACH_S):
        return False
    await daemon.gone()
    trial.injected += 1
    daemon.start()
    await daemon.ready()
    await trial.progress()  # or nobody lives for long enough to do anything
    return True


async def lose_the_folder(rig: Rig) -> RowResult:
    """Row 20: a host dies and comes back with an empty disk."""
    async with a_trial(rig, 20) as trial:
        (a,) = await trial.begin("a")
        await trial.progress(6)
        await a.kill()
        trial.injected += 1
        b = trial.daemon("b")
        b.start()
        await b.ready()
        await trial.progress(6)
        return await trial.finish("one host's state folder lost", None)


async def terminate_under_load(rig: Rig) -> RowResult:
    """Row 23: SIGTERM under load, again and again."""
    async with a_trial(rig, 23) as trial:
        (daemon,) = await trial.begin("a")
        times = rig.size(4, 8)
        for _ in range(times):
            await trial.play(trial.rng.uniform(1, 4))
            status = await daemon.stop()
            trial.injected += 1
            if status != 0:
                trial.complaints.append(f"SIGTERM gave status {status}")
            daemon.start()
            await daemon.ready()
        await trial.progress(2)
        return await trial.finish(f"SIGTERM under load, {times} times", 10)

"""A real systemd system manager, PID 1 of namespaces of its own, that runs the shipped unit.

The unit file is taken as it is: /opt, /etc and /var inside the namespaces are made to look like a
machine on which s2netd was installed as systemd/s2netd.env.example tells, so user, sandbox and
watchdog are real. Nothing of it is visible outside, and all of it dies with the manager.
"""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.support.checkout import CHECKOUT

UNIT = CHECKOUT / "systemd" / "s2netd@.service"
PRODUCE_UNIT = CHECKOUT / "systemd" / "s2netd-produce@.service"
SYSTEMD = Path("/lib/systemd/systemd")
STARTS_WITHIN_S = 120

_NAMESPACES = ("--pid", "--mount", "--cgroup", "--uts", "--ipc")
_UNSHARE = ("unshare", "--fork", "--kill-child", "--mount-proc", *_NAMESPACES)

# Runs as PID 1 in the new namespaces, then becomes systemd. Arguments: the folder of units, the
# checkout, the prefix of the base python, the folder of installed packages.
_BOOT = r"""
set -eu
units=$1 checkout=$2 base=$3 packages=$4
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/etc
cp -a /etc/. /run/etc
mount --bind /run/etc /etc

mkdir -p /run/opt/s2netd/python /run/opt/s2netd/src /run/opt/s2netd/packages
mount --bind "$base" /run/opt/s2netd/python
mount --bind "$checkout" /run/opt/s2netd/src
mount --bind "$packages" /run/opt/s2netd/packages
mount --rbind /run/opt /opt
/opt/s2netd/python/bin/python3 -m venv --without-pip /opt/s2netd/venv
echo /opt/s2netd/src > "$(echo /opt/s2netd/venv/lib/python3*/site-packages)/s2netd.pth"
echo /opt/s2netd/packages >> "$(echo /opt/s2netd/venv/lib/python3*/site-packages)/s2netd.pth"
printf '%s\n' '#!/opt/s2netd/venv/bin/python' 'import sys' 'from daemon.cli import main' \
  'sys.exit(main())' > /opt/s2netd/venv/bin/s2netd
chmod 755 /opt/s2netd/venv/bin/s2netd

mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/cache
systemd-sysusers "$checkout/systemd/s2netd.sysusers.conf"
systemd-tmpfiles --create "$checkout/systemd/s2netd.tmpfiles.conf"

mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
export container=s2netd-tests SYSTEMD_UNIT_PATH="$units"
exec /lib/systemd/systemd --system --unit=basic.target --show-status=no --log-target=console
"""


def why_no_manager() -> str | None:
    """What is missing here, with how to get it; ``None`` where a manager can be started."""
    if not SYSTEMD.exists() or shutil.which("systemctl") is None:
        return "no systemd on this machine (Debian: apt install systemd)"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "no unshare and nsenter (Debian: apt install util-linux)"
    if os.geteuid() != 0:
        return "a systemd manager of our own needs root"
    probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return f"no new namespaces here: {probe.stderr.strip()}" if probe.returncode else None


class SystemManager:
    """The manager, running between ``with`` and its end."""

    def __init__(self) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="s2netd-systemd-"))
        self._boot_log = self._place / "manager.log"
        self._units = self._place / "units"

    def __enter__(self) -> Self:
        self._write_units()
        packages = sysconfig.get_path("purelib")
        boot_args = [str(self._units), str(CHECKOUT), sys.base_prefix, packages]
        with self._boot_log.open("wb") as log:
            self._unshare = subprocess.Popen(
                [*_UNSHARE, "bash", "-c", _BOOT, "boot", *boot_args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            )
        self._wait_for_boot()
        return self

    def __exit__(self, *_exc: object) -> None:
        # unshare's child is PID 1 in there: the kernel ends everything else with it.
        self._unshare.kill()
        self._unshare.wait()
        shutil.rmtree(self._place)

    def systemctl(self, *args: str) -> str:
        """Standard output of one ``systemctl`` call; its failure is an error with its words."""
        try:
            return self.inside("systemctl", *args)
        except RuntimeError as error:
            if "start" in args:
                error.add_note(self._account())
            raise

    def show(self, unit: str, prop: str) -> str:
        """One property of a unit, as systemd writes it."""
        return self.systemctl("show", "--value", f"--property={prop}", unit).strip()

    def kill_main(self, unit: str, sig: signal.Signals) -> None:
        """Send a signal to a unit's main process."""
        self.systemctl("kill", "--kill-whom=main", f"--signal={sig.name}", unit)

    def path(self, absolute: str) -> Path:
        """A path of the manager's machine, as reached from outside."""
        return Path(f"/proc/{self._pid_1()}/root") / absolute.lstrip("/")

    def drop_in(self, unit: str, text: str) -> None:
        """Add settings to a unit (a template's go to all its instances)."""
        folder = self._units / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.conf").write_text(text)
        self.systemctl("daemon-reload")

    def remove_drop_ins(self, unit: str) -> None:
        """Take back what was added to one unit."""
        shutil.rmtree(self._units / f"{unit}.d", ignore_errors=True)
        self.systemctl("daemon-reload")

    def log(self, instance: str) -> str:
        """What an instance of the unit has written so far."""
        path = self.path(f"/run/{instance}.log")
        return path.read_text() if path.exists() else ""

    def wait_for(self, unit: str, prop: str, wanted: str) -> None:
        """Wait until a property has a value."""
        self.wait_until(lambda: self.show(unit, prop) == wanted, f"{unit}: {prop}={wanted}")

    def wait_until(self, holds: Callable[[], bool], what: str, within_s: float = 240) -> None:
        """Wait until something holds; say where things stand when it never does."""
        end = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {within_s} s: {what}\n{self._account()}")
            time.sleep(0.05)

    def _account(self) -> str:
        states = self.systemctl("list-units", "--all", "--plain", "--no-legend", "s2netd@*")
        logs = [path.read_text() for path in self.path("/run").glob("*.log")]
        return "\n".join([states, *logs, self._boot_log.read_text()])

    def _write_units(self) -> None:
        self._units.mkdir()
        for unit, log in ((UNIT, "%i"), (PRODUCE_UNIT, "%i.cameras")):
            shutil.copy(unit, self._units)
            folder = self._units / f"{unit.name}.d"
            folder.mkdir()
            # There is no journal in there, and a Python that was moved may have its own libpython.
            (folder / "tests.conf").write_text(
                f"[Service]\nStandardOutput=append:/run/{log}.log\nStandardError=inherit\n"
                "Environment=LD_LIBRARY_PATH=/opt/s2netd/python/lib\n"
            )
        for target in ("sysinit", "basic", "shutdown", "network-online", "multi-user"):
            text = f"[Unit]\nDescription={target}\nDefaultDependencies=no\n"
            (self._units / f"{target}.target").write_text(text)

    def _wait_for_boot(self) -> None:
        end = time.monotonic() + STARTS_WITHIN_S
        while self._unshare.poll() is None and time.monotonic() < end:
            try:
                if self.systemctl("is-active", "basic.target").strip() == "active":
                    return
            except (OSError, RuntimeError):
                time.sleep(0.05)
        log = self._boot_log.read_text()
        self.__exit__()
        raise RuntimeError(f"systemd did not start within {STARTS_WITHIN_S} s:\n{log}")

    def _pid_1(self) -> int:
        pid = self._unshare.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def inside(self, *command: str) -> str:
        """Standard output of a command run, as root, on the manager's machine."""
        try:
            enter = ["nsenter", "--target", str(self._pid_1()), *_NAMESPACES]
        except IndexError:
            raise RuntimeError("the manager has no process yet") from None
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: status {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

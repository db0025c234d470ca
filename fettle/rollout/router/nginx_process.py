"""nginx as reverse proxy: one public address, two arms, weights moved without losing a request.

nginx lives on when the process that started it dies: what serves must not hang on what decides.
Everything it needs to be found again (pid, configuration, logs) lies in its folder. `set_routes`
may be called again with the same value; it returns when new connections meet the new value.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from fettle import manifest
from fettle.adapters import process_identity
from fettle.errors import TransientError, UserError
from fettle.rollout.router import access_log, nginx_binary, nginx_config, sticky_hash
from fettle.rollout.router.nginx_config import RouterConfig, Routes

CONNECTIONS = 8192  # of a worker: 2 MB; more than slow links from a few addresses fill in 10 s
START_S = 10.0  # it takes 0.1 s on an idle core
ORPHAN_S = 5.0  # a worker without a master ends within milliseconds of SIGTERM
KILL_SWITCH = (
    "switch"  # a file that names the present routes' kill switch: the watchdog engages it too
)
SWITCH_NAME = r"stop-[A-Za-z0-9_.:-]{0,80}"
LOG_MAX_BYTES = 64 * 2**20  # 200,000 requests; then the log is rotated
KEPT_LOGS = 3  # put aside: a plan reads the last 4 MiB, a rollout's history 16 MiB


def place(folder: Path, *, host: str, port: int, control: int) -> RouterConfig:
    """Describe a router in `folder`, which is made; `control` is a loopback port of ours."""
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / "tmp" / name).mkdir(parents=True, exist_ok=True)
    if (user := nginx_binary.worker_user()) is not None:
        folder.chmod(folder.stat().st_mode | 0o111)  # a worker looks for the kill switch in it
    made = RouterConfig(
        folder.resolve(),
        host,
        port,
        control,
        nginx_binary.version(nginx_binary.binary()),
        user=user,
        hash_file=sticky_hash.write(folder),
    )
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fits = CONNECTIONS if most == resource.RLIM_INFINITY else min(CONNECTIONS, most // 2)
    return replace(made, connections=max(fits, made.per_address))


class Nginx:
    """The router at `place`; started at the first `set_routes`."""

    def __init__(self, place: RouterConfig) -> None:
        self.place = place
        self._program = nginx_binary.binary()
        self._conf = place.folder / "nginx.conf"
        self._routes: Routes | None = None

    @property
    def pid(self) -> int | None:
        """The master's process id, or None when it does not run."""
        return running(self.place.folder)

    def set_routes(self, routes: Routes) -> None:
        """Serve these routes from the next connection on.

        Raises UserError when nginx refuses them (the old ones stay), TransientError when it does
        not take them up in time.
        """
        text, generation = nginx_config.render(self.place, routes)
        self._routes = routes
        if not (watched := self.place.folder / nginx_config.WATCHED).is_symlink():
            watched.touch()
        switch = self.place.stop(routes).name if routes.challenger else ""
        manifest.write_text(self.place.folder / KILL_SWITCH, switch)
        if self.pid is not None and self.generation() == generation:
            return
        pid = self.pid
        if pid is not None and not _in_folder(pid, self.place.folder):
            terminate(self.place.folder)  # an earlier version's: its workers would not find a file
            pid = None
        if pid is None:
            end_orphans(self.place.folder)  # they would hold the address
        self._check(text)
        manifest.write_text(self._conf, text)
        if pid is None:
            self._start()
            self._await(generation, [])
        else:
            before = psutil.Process(pid).children()
            os.kill(pid, signal.SIGHUP)
            self._await(generation, before)

    def check(self, routes: Routes) -> None:
        """Render routes and let nginx read them, without serving them.

        Raises UserError when one of the two refuses them.
        """
        self._check(nginx_config.render(self.place, routes)[0])

    @property
    def challenger_stopped(self) -> bool:
        """Whether the kill switch of the present routes is engaged."""
        return self._routes is not None and self.place.stop(self._routes).exists()

    def stop_challenger(self) -> None:
        """Send every request to the champion from now on; takes one file, no running nginx."""
        engage_kill_switch(self.place.folder)

    def release_challenger(self) -> None:
        """Take the kill switch of the present routes back."""
        if self._routes is not None:
            self.place.stop(self._routes).unlink(missing_ok=True)

    def watch(self, pid: int | None) -> None:
        """Let the challenger meet users only as long as this process lives; None: always."""
        link = self.place.folder / nginx_config.WATCHED
        # `stat` there is still a file for a process that nobody has waited for (a zombie)
        target = f"/proc/{pid}/net/dev"
        if pid is None or not _shows_processes() or not Path(target).is_file():
            if link.is_symlink() or not link.exists():
                link.unlink(missing_ok=True)
                link.touch()
            return
        if link.is_symlink() and str(link.readlink()) == target:
            return
        draft = link.with_name(f".{link.name}")
        draft.unlink(missing_ok=True)
        draft.symlink_to(target)
        draft.replace(link)

    def generation(self) -> str | None:
        """Ask the running nginx which configuration new connections meet."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://127.0.0.1:{self.place.control}/generation", timeout=2) as got:
                return str(got.read().decode())
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def rotate(self, most_bytes: int | None = None) -> None:
        """Put a full log aside under its first byte's position; nginx opens a new one.

        Only the last KEPT_LOGS of these stay: what was judged of them stands in the journal.
        """
        pid = self.pid
        log = self.place.log
        if pid is None or not log.is_file() or log.stat().st_size < (most_bytes or LOG_MAX_BYTES):
            return
        if not access_log.may_rotate(log):
            return
        access_log.drop_oldest(log, KEPT_LOGS - 1)
        log.rename(access_log.rotated_path(log))
        os.kill(pid, signal.SIGUSR1)

    def stop(self) -> None:
        """End nginx."""
        terminate(self.place.folder)

    def _check(self, text: str) -> None:
        trial = self._conf.with_suffix(".trial")
        manifest.write_text(trial, text)
        done = subprocess.run(
            [self._program, "-t", "-q", "-p", "./", "-c", trial],
            cwd=self.place.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        trial.unlink()
        # the port is bound by -t too, which is ours already when nginx runs
        if done.returncode:
            raise UserError(
                "nginx refuses the router's configuration",
                got=(done.stderr.strip().splitlines() or ["no reason"])[0],
                rule=f"it must pass `{self._program} -t`",
                fix="check the address, the port and the certificate; the old routes stay",
            )

    def _start(self) -> None:
        done = subprocess.run(
            [self._program, "-p", "./", "-c", self._conf],
            cwd=self.place.folder,  # the workers inherit it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError(
                f"the router cannot listen on {self.place.host} port {self.place.port}",
                got=(done.stderr.strip().splitlines() or ["no reason"])[0],
                rule="an address of this machine, and a port that no other server holds",
                fix="stop that server, or take another port with --port",
            )

    def _await(self, generation: str, before: list[psutil.Process]) -> None:
        """Wait until a new worker answers and no old one takes connections any more."""
        deadline = time.monotonic() + START_S
        while self.generation() != generation or any(_accepts(worker) for worker in before):
            if time.monotonic() > deadline:
                log = self.place.folder / "error.log"
                tail = log.read_text(errors="replace").splitlines()[-1:] if log.is_file() else []
                raise TransientError(
                    "the router did not take up its new routes",
                    got=tail[0] if tail else "no reason in its log",
                    rule=f"within {START_S:g} s",
                    fix=f"read {log}",
                )
            time.sleep(0.01)


def _shows_processes() -> bool:
    """Tell whether a worker without rights sees whether another user's process lives."""
    try:
        return "hidepid=" not in Path("/proc/mounts").read_text()
    except OSError:  # not Linux
        return False


def _in_folder(pid: int, folder: Path) -> bool:
    try:
        return Path(psutil.Process(pid).cwd()) == folder
    except psutil.Error:
        return True


def _accepts(worker: psutil.Process) -> bool:
    """Say whether a worker of before the reload still takes new connections, by its title."""
    try:
        title = " ".join(worker.cmdline())
    except psutil.Error:
        return False
    return title.startswith("nginx: worker process") and "shutting down" not in title


def engage_kill_switch(folder: Path) -> None:
    """Engage the kill switch of the challenger in `folder`; where none is routed to, do nothing.

    Both the file that names it and the configuration are asked: either may be damaged.
    """
    conf = _text(folder / "nginx.conf")
    named = {_text(folder / KILL_SWITCH)}
    if "upstream challenger " in conf:
        named |= {Path(path).name for path in re.findall(r"if \(-f (\S+)\)", conf)}
    for name in named:
        if re.fullmatch(SWITCH_NAME, name):
            (folder / name).touch()


def _text(path: Path) -> str:
    """Return a file's text; "" where there is none or it is no text."""
    try:
        return path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def running(folder: Path) -> int | None:
    """Return the process id of the router in `folder`, None when it does not run.

    By its pid file, and where that is damaged or names a stranger, by the masters' titles.
    """
    conf = str(folder.resolve() / "nginx.conf")
    try:
        pid = int((folder / "nginx.pid").read_text())
        if _is_master(psutil.Process(pid), conf):
            return pid
    except (OSError, ValueError, OverflowError, psutil.Error):
        if not (folder / "nginx.conf").is_file():
            return None  # it was never started
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_master(process, conf):
                return int(process.pid)
    return None


def _is_master(process: psutil.Process, conf: str) -> bool:
    """Tell whether it is the master that serves by this configuration; a dead one has no title."""
    title = " ".join(process.cmdline()).rstrip()  # it fills what its environment took with nothing
    return title.startswith("nginx: master process ") and title.endswith(f" {conf}")


def terminate(folder: Path, *, timeout_s: float = 10.0) -> None:
    """End the router in `folder`: open requests are answered first, for at most `timeout_s`.

    Ends workers too whose master has died, which hold the address and answer on.
    """
    if (pid := running(folder)) is not None:
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + timeout_s
        while running(folder) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        if running(folder) is not None:
            os.kill(pid, signal.SIGTERM)
            _await_end(folder)
    end_orphans(folder)


def _await_end(folder: Path) -> None:
    deadline = time.monotonic() + ORPHAN_S
    while running(folder) is not None and time.monotonic() < deadline:
        time.sleep(0.05)


def orphans(folder: Path) -> list[psutil.Process]:
    """List the workers of the router in `folder` whose master is gone: they have its log open."""
    folder = folder.resolve()
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if "nginx" in process.name() and _master(process) is None:
                opened = {Path(file.path).parent for file in process.open_files()}
                if folder in opened and process.pid != running(folder):
                    found.append(process)
    return found


def _master(worker: psutil.Process) -> psutil.Process | None:
    above = worker.parent()
    return above if above is not None and "nginx" in above.name() else None


def end_orphans(folder: Path) -> int:
    """End the workers in `folder` whose master is gone, by their numbers; return how many."""
    found = orphans(folder)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in found:
            with suppress(psutil.Error):
                process.send_signal(number)
        if not process_identity.wait_ended(found, timeout_s=ORPHAN_S):
            break
    return len(found)

"""systemd unit of a served project: `fettle serve` after every boot, as it was served last."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.errors import UserError
from fettle.manifest import write_text

# of this environment what a service needs to find its things again, and nothing secret
CARRIED = (
    *("BENTOML_HOME", "XDG_CONFIG_HOME", "PYTHONPATH", "FETTLE_API_KEY_FILE"),
    *("FETTLE_SIGNING_KEY", "FETTLE_NGINX", "FETTLE_METRICS_FROM"),
)
STOP_S = 90  # the releases answer what they began, at most 60 s
TEMPLATE = """\
# Written by `fettle service install`; the address, TLS, the releases and a rollout under way are
# those that were served last. Secrets and hooks (FETTLE_API_KEY, FETTLE_WEBHOOK, …) go into
# {env_file} (mode 0600), NAME=VALUE a line.
[Unit]
Description=fettle serves {name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
{user}WorkingDirectory={root}
{environment}EnvironmentFile=-{env_path}
ExecStart={command}
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec={stop_s}
LimitNOFILE=65536
NoNewPrivileges=yes

[Install]
WantedBy={target}
"""


@dataclass(frozen=True, slots=True)
class SystemdUnit:
    """One unit: where it belongs, its text, and what a person runs next."""

    path: Path
    text: str
    system: bool
    env_file: Path

    @property
    def next_commands(self) -> list[str]:
        """Return the commands that start it now and at every boot."""
        name = self.path.name
        if self.system:
            return ["systemctl daemon-reload", f"systemctl enable --now {name}"]
        return [
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {name}",
            "loginctl enable-linger  # at boot, and not only while you are logged in",
        ]


def make(root: Path, environ: Mapping[str, str], *, system: bool, user: str) -> SystemdUnit:
    """Describe the unit of a project for this user, or for the whole machine."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", root.name).strip("-.") or "project"
    name = f"fettle-{slug}"
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = Path("/etc/systemd/system") if system else config / "systemd" / "user"
    env_file = (Path("/etc/fettle") if system else config / "fettle") / f"{name}.env"
    carried = {one: environ[one] for one in CARRIED if environ.get(one)}
    carried["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    lines = [f"Environment={quoted(f'{key}={value}')}\n" for key, value in sorted(carried.items())]
    text = TEMPLATE.format(
        name=escaped(str(root)),
        user=f"User={user}\n" if system else "",
        root=escaped(str(root)),
        environment="".join(lines),
        env_file=env_file,
        env_path=escaped(str(env_file)),
        command=command_line([sys.executable, "-P", "-m", "fettle.cli.main", "serve"]),
        stop_s=STOP_S,
        target="multi-user.target" if system else "default.target",
    )
    return SystemdUnit(folder / f"{name}.service", text, system, env_file)


def escaped(text: str) -> str:
    """Write a value for systemd, which reads %x as a specifier.

    Raises UserError for a line break.
    """
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise UserError(
            "a systemd unit cannot hold this",
            got=repr(text),
            rule="a value is one line",
            fix="rename the folder, or unset the variable",
        )
    return text.replace("%", "%%")


def quoted(text: str) -> str:
    """Write one word as systemd reads it back."""
    inner = escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def command_line(words: Sequence[str]) -> str:
    """Write a command as ExecStart reads it back: without a shell, where $NAME is a variable."""
    return " ".join(quoted(word).replace("$", "$$") for word in words)


def install(unit: SystemdUnit) -> None:
    """Write the unit's file.

    Raises UserError where another project's unit has its name, or the folder cannot be written.
    """
    mine = next(line for line in unit.text.splitlines() if line.startswith("WorkingDirectory="))
    try:
        if unit.path.is_file() and mine not in unit.path.read_text().splitlines():
            raise UserError(
                f"{unit.path} is the unit of another project",
                got=f"no {mine} in it",
                rule="a unit is named after its project's folder",
                fix="rename one of the two folders, or write --print into a file of your own",
            )
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(unit.path, unit.text)
    except OSError as err:
        raise UserError(
            f"the unit cannot be written to {unit.path}",
            got=err.strerror or str(err),
            fix="as root for --system, without it for this user alone; or use --print",
        ) from err

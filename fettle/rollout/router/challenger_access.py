"""Challenger access: whether users meet it now, by the very files that nginx looks for."""

from __future__ import annotations

from pathlib import Path

from fettle.rollout.router import nginx_config, nginx_process, router_lease


def is_open(folder: Path, *, now_s: float) -> bool:
    """Say whether the router in `folder` runs and lets users meet the challenger."""
    if nginx_process.running(folder) is None or not (folder / nginx_config.WATCHED).exists():
        return False
    try:
        named = (folder / nginx_process.KILL_SWITCH).read_text()
    except (OSError, UnicodeDecodeError):
        return False
    return not (folder / (named or "stop-")).exists() and router_lease.holds(folder, now_s=now_s)

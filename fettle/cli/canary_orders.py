"""Between `fettle canary` and its supervisor: the releases, an order, its answer, the status."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fettle.json_values import JsonObject
    from fettle.project import Project
    from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
    from fettle.rollout.supervisor.status_document import RolloutStatus

FREE_LEAST_BYTES = 2**20  # a round writes some kilobytes
STATUS_TRIES, STATUS_AGAIN_S = 4, 0.3  # it is written twice a second


def project(*, plan: bool = True) -> tuple[Project, JsonObject]:
    """Take the current folder's project, and the plan of its params.yaml unless none is wanted."""
    from fettle import params as params_file
    from fettle import project as projects
    from fettle.rollout.promotion.rollout_plan import section_to_json

    home = projects.find()
    os.environ.update(projects.environment(home))
    if not plan:
        return home, {}
    section = params_file.load(home.root / "params.yaml").promote
    return home, section_to_json(section)


def pinned(home: Project, named: str | None) -> tuple[PinnedRelease, PinnedRelease | None]:
    """Resolve the two releases, once: from here on digests are spoken of, not names."""
    from fettle.errors import TransientError, UserError
    from fettle.rollout.supervisor import supervisor_launch

    last = supervisor_launch.last_release(home)
    try:
        from fettle.adapters import mlflow_aliases

        registry = mlflow_aliases.ModelRegistry(home.registry_uri, last.tag.partition(":")[0])
        challenger_name = named or registry.resolve("challenger")
        champion_name = registry.resolve("champion")
    except TransientError as err:
        print(f"fettle: {err} The last release is taken.", file=sys.stderr)
        challenger_name, champion_name = named, None
    challenger = supervisor_launch.pin(home, challenger_name) if challenger_name else last
    if named is None and challenger_name is None:
        gate = json.loads((Path(challenger.folder) / "gate.json").read_text())
        if not gate.get("passed", False):
            raise UserError(
                "the last release is no challenger",
                got="its offline gate did not pass",
                rule="only a release that passed may meet users",
                fix="see `fettle report`, or name another with --release",
            )
    champion = supervisor_launch.pin(home, champion_name) if champion_name else None
    return challenger, champion


def who() -> str:
    """Return USER@HOST, and who became that user by sudo."""
    before = os.environ.get("SUDO_USER")
    return f"{getpass.getuser()}@{platform.node()}{f' (sudo: {before})' if before else ''}"


def order(
    home: Project, order: Mapping[str, object], *, why: str | None, timeout_s: float
) -> JsonObject:
    """Hand an order to the supervisor and wait for what became of it."""
    from fettle.errors import TransientError, from_record
    from fettle.rollout.supervisor import log_rotation, order_queue, supervisor_launch

    place = supervisor_launch.layout_of(home)
    name = order_queue.submit_order(
        place, {**order, "who": who(), "why": why or ""}, timeout_s=timeout_s
    )
    answer = order_queue.await_answer(place, name, timeout_s=timeout_s)
    if answer is None:
        order_queue.withdraw_order(place, name)
        raise TransientError(
            "the supervisor did not answer",
            got=log_rotation.last_line(place.folder / "controller.log"),
            rule=f"within {timeout_s:g} s",
            fix=f"read {place.folder / 'controller.log'}, then give the order again",
        )
    if "error" in answer:
        raise from_record(str(answer["kind"]), str(answer["error"]))
    return answer


def status(home: Project) -> RolloutStatus:
    """Read where the rollout stands; idle where there is none."""
    from fettle.rollout.promotion.rollout_state import is_over
    from fettle.rollout.supervisor import supervisor_launch

    place = supervisor_launch.layout_of(home)
    serving = place.serving()
    problems = place.problems() if supervisor_launch.running(place) else {}
    if place.folder.is_dir() and (free := shutil.disk_usage(place.folder).free) < FREE_LEAST_BYTES:
        why = (
            f"it is full, {free:,} bytes are left: until there is room the challenger gets no user"
        )
        problems["disk"] = f"{why}; `fettle gc` shows what may go"
    said: RolloutStatus = {"problems": problems} if problems else {}
    champion = serving.champion.release if serving and serving.champion else None
    said |= {"state": "idle", "champion": champion, "gates": [], "weight_percent": 0.0}
    said["serves"] = supervisor_launch.nginx_alive(place)
    if serving is None or serving.rollout is None:
        return said
    runs = supervisor_launch.running(place)
    stated = _stated(place.rollout(serving.rollout) / "status.json", serving, wait=runs)
    said |= {**stated, "supervisor": "running" if runs else "stopped"}
    decided = said["weight_percent"]
    alone = serving.champion is None and said["serves"]  # a first release: there is no other
    if decided and not (alone or is_over(said["state"]) or _meets_challenger(place)):
        said |= {"weight_percent": 0.0, "decided_percent": decided}
    return said


def _meets_challenger(place: StateLayout) -> bool:
    """Say whether users meet the challenger; looked at twice, for a decision may be under way."""
    from fettle.rollout.router import challenger_access

    for _ in range(2):
        if challenger_access.is_open(place.router, now_s=time.time()):
            return True
        time.sleep(STATUS_AGAIN_S)
    return False


def _stated(path: Path, serving: ServingState, *, wait: bool) -> RolloutStatus:
    """Read status.json; of a damaged one, which a supervisor writes anew, what is known still."""
    from fettle.json_values import read_object

    wanted = {"rollout", "state", "weight_percent", "challenger", "reason", "requests", "eta_s"}
    for _ in range(STATUS_TRIES if wait else 1):
        doc = read_object(path)
        if doc is not None and wanted <= set(doc):
            return cast("RolloutStatus", doc)
        time.sleep(STATUS_AGAIN_S)
    return {
        "rollout": serving.rollout,
        "state": serving.state or "unknown",
        "challenger": serving.challenger.release if serving.challenger else None,
        "reason": f"{path} cannot be read",
        "requests": 0,
        "eta_s": None,
    }

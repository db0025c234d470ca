"""The router's log tells one user from another, and neither's key."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from router_bench import Bench

from fettle.rollout.router import nginx_process, sticky_hash


def keys(bench: Bench, users: list[str]) -> list[str]:
    """Ask as each of these users; return the keys that were logged."""
    log = bench.router.place.log
    before = len(log.read_text().splitlines()) if log.is_file() else 0
    for user in users:
        bench.ask(X_User=user)
    return [line.key for line in bench.logged(before + len(users))[before:]]


def test_each_user_has_one_hash_of_its_own_and_no_key_is_in_the_log(bench: Bench) -> None:
    users = [f"user-{number}" for number in range(300)]
    bench.router.set_routes(bench.routes(weight_percent=50, sticky="header:X-User", salt="r1"))
    first = keys(bench, users)
    assert len(set(first)) == len(users)
    bench.router.set_routes(bench.routes(weight_percent=80, sticky="header:X-User", salt="r2"))
    assert keys(bench, users[:20]) == first[:20]  # the next rollout finds the same users
    assert b"user-" not in bench.router.place.log.read_bytes()


def test_the_hash_is_keyed_by_a_secret_that_stays_and_is_this_user_s(
    bench: Bench, tmp_path: Path
) -> None:
    name = sticky_hash.write(bench.folder)
    assert name == bench.router.place.hash_file
    assert stat.S_IMODE((bench.folder / name).stat().st_mode) == 0o600
    bench.router.set_routes(bench.routes(weight_percent=50, sticky="header:X-User"))
    (here,) = keys(bench, ["ann"])
    (bench.folder / name).unlink()
    other = sticky_hash.write(bench.folder)
    bench.router = nginx_process.Nginx(replace(bench.router.place, hash_file=other))
    bench.router.set_routes(bench.routes(weight_percent=50, sticky="header:X-User"))
    bench.link.close()
    assert keys(bench, ["ann", "ann"])[-1] != here


def test_a_request_without_a_key_has_none_in_the_log(bench: Bench) -> None:
    bench.router.set_routes(bench.routes(weight_percent=50, sticky="header:X-User"))
    bench.ask()
    assert [line.key for line in bench.logged(1)] == [""]


def test_a_damaged_secret_is_made_anew(tmp_path: Path) -> None:
    name = sticky_hash.write(tmp_path)
    (tmp_path / name).write_text("torn")
    assert sticky_hash.write(tmp_path) != name
    assert len(list(tmp_path.glob(sticky_hash.GLOB))) == 1

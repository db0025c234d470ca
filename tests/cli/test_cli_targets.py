from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fettle import plugins
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import iree

COLUMNS = "200"  # so that no cell is folded


def fettle(
    *words: str, toolchains: Path, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    import os

    done = subprocess.run(
        [sys.executable, "-m", "fettle.cli.main", "targets", *words],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "COLUMNS": COLUMNS,
            "FETTLE_TOOLCHAINS": str(toolchains),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            **variables,
        },
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_list_says_how_to_get_a_missing_toolchain(tmp_path: Path) -> None:
    lines = fettle(toolchains=tmp_path).stdout.splitlines()
    told = {line.split()[0]: line for line in lines}
    assert "unavailable: run `fettle targets install iree`" in told["x86_iree_fp32"]
    assert list(tmp_path.iterdir()) == []  # looking makes nothing


def test_the_table_fits_80_columns_with_every_name_and_its_evidence_whole(tmp_path: Path) -> None:
    lines = fettle(toolchains=tmp_path, COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    known = set(plugins.names("targets"))
    assert len(lines) == len(known) + 2  # a line each, a head, and where to read more
    assert any(line.rstrip().endswith("fettle targets install iree") for line in lines)
    starts = {tuple(line.split()[:2]) for line in lines if line.split()[:1] != []}
    found = {name: kind for name, kind in (one for one in starts if len(one) == 2) if name in known}
    assert (found["x86_ort_dynamic_int8"], found["arm64_ort_int8"]) == ("measured", "emulated")
    assert set(found) == known


def test_programs_get_the_reason_and_the_command(tmp_path: Path) -> None:
    rows = json.loads(fettle("--json", toolchains=tmp_path).stdout)
    row = next(row for row in rows if row["target"] == "x86_iree_fp32")
    assert row["runs_here"] is False
    assert row["install"] == "fettle targets install iree"
    plain = next(row for row in rows if row["target"] == "x86_ort_fp32")
    told = {key: plain[key] for key in ("family", "evidence", "next_command")}
    assert told == {"family": "x86 CPU", "evidence": "measured", "next_command": "fettle run"}
    assert (plain["install"], plain["reason"] in ("", "other hardware")) == (None, True)


@pytest.mark.toolchain  # a real venv, and pip
@pytest.mark.parametrize("name", ["iree", "x86_iree_fp32"])
def test_installing_says_what_it_costs_first_and_pip_s_words_when_it_fails(
    tmp_path: Path, name: str
) -> None:
    empty = tmp_path / "wheels"
    empty.mkdir()
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(empty)}
    done = fettle("install", name, toolchains=tmp_path / "cache", code=2, **offline)
    cost, told = done.stderr.strip().splitlines()
    assert cost.startswith("IREE: about 145 MB to download, 680 MB on disk at ")
    assert told.startswith("fettle: the toolchain iree could not be installed: got ")
    assert "No matching distribution found for iree-base-compiler==3.13.0" in told
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".busy"]


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    done = fettle("install", "x86_iree", toolchains=tmp_path, code=2)
    assert done.stderr == (
        "fettle: there is no such target or toolchain: got 'x86_iree', did you mean "
        f"'x86_iree_fp32'?; the toolchains are {', '.join(plugins.names('runtimes'))}. "
        "Fix: `fettle targets` lists the targets.\n"
    )


def test_a_target_of_our_own_environment_has_nothing_to_install(tmp_path: Path) -> None:
    done = fettle("install", "x86_ort_fp32", toolchains=tmp_path, code=2)
    assert done.stderr.startswith(
        "fettle: x86_ort_fp32 has no environment of its own to install: got version "
    )
    assert done.stderr.endswith("Fix: nothing is to be done.\n")


def test_an_installed_one_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path))
    place = toolchain_environment.folder(iree.TOOLCHAIN)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    packages = {"iree-base-compiler": "3.13.0"}
    (place / toolchain_environment.STAMP).write_text(
        json.dumps({"python": "3", "packages": packages})
    )
    done = fettle("install", "iree", toolchains=tmp_path)
    assert done.stdout == "IREE 3.13.0 is ready\n"
    assert done.stderr == f"IREE is installed already, at {place}\n"

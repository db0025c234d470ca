"""Threads of a training: the physical cores that are allowed and asked for."""

from __future__ import annotations

import pytest

from fettle.recipes import training_setup


@pytest.mark.parametrize(
    ("physical", "allowed", "asked", "expected"),
    [
        (8, 8, None, 8),
        (8, 2, None, 2),
        (8, 8, "3", 3),
        (None, 4, None, 1),
        (4, 4, "0", 1),
        (4, 4, "many", 4),
    ],
)
def test_threads_are_the_physical_cores_allowed_and_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    physical: int | None,
    allowed: int,
    asked: str | None,
    expected: int,
) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda **_: physical)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert training_setup.threads() == expected

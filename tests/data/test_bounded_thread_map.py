"""Bounded thread map: the order of the stream, few in flight, and the error at its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fettle.data import bounded_thread_map as module
from fettle.data.bounded_thread_map import AHEAD, THREADS_MAX, bounded_thread_map


@pytest.fixture(params=[1, 3])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "threads", lambda: request.param)
    return int(request.param)


def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(bounded_thread_map(slow_first, range(20))) == [at * at for at in range(20)]


def test_no_more_items_are_taken_than_are_in_flight(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    for given in bounded_thread_map(lambda number: number, items()):
        assert taken <= given + AHEAD * workers
    assert taken == 100


def test_an_error_comes_at_its_place_and_ends_the_threads(workers: int) -> None:
    def odd(number: int) -> int:
        if number == 5:
            raise ValueError("no 5")
        return number

    found: list[int] = []
    with pytest.raises(ValueError, match="no 5"):
        found.extend(bounded_thread_map(odd, range(50)))
    assert found == [0, 1, 2, 3, 4]
    assert not [one for one in threading.enumerate() if one.name.startswith("decode")]


def test_there_are_a_few_threads_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert module.threads() == THREADS_MAX
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {7}, raising=False)
    assert module.threads() == 1

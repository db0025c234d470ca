from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from fettle.preprocessing import Pixels
from fettle.serving.request_batching import INLINE_MAX_S, Batcher


def images(*levels: int) -> Pixels:
    return np.array(levels, dtype=np.uint8).reshape(-1, 1, 1, 1)


class Model:
    """Answers the level of each image; waits at the gate while it is shut."""

    def __init__(self, refuses: int | None = None) -> None:
        self.gate = threading.Event()
        self.batches: list[int] = []
        self.refuses = refuses

    def __call__(self, pixels: Pixels) -> list[int]:
        assert self.gate.wait(10)
        self.batches.append(len(pixels))
        levels = pixels[:, 0, 0, 0].tolist()
        if self.refuses in levels:
            raise ValueError(f"level {self.refuses}")
        return [int(level) for level in levels]


def run(work: Callable[[Batcher[int], Model], object], model: Model, most: int = 4) -> None:
    async def inside() -> None:
        await work(Batcher(model, most=most, note=model_noted.append), model)  # type: ignore[misc]

    model_noted: list[int] = []
    asyncio.run(inside())
    assert model_noted == model.batches


async def held(batcher: Batcher[int], *requests: Pixels) -> list[asyncio.Task[list[int]]]:
    """Send the requests one after another; the first is at the model before the second comes."""
    tasks = []
    for request in requests:
        tasks.append(asyncio.create_task(batcher(request)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks


def test_a_lone_request_goes_at_once() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        model.gate.set()
        assert await batcher(images(7, 8)) == [7, 8]

    model = Model()
    run(work, model)
    assert model.batches == [2]


def test_what_comes_while_the_model_is_busy_goes_together() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        tasks = await held(batcher, images(1), images(2), images(3, 4), images(5))
        model.gate.set()
        assert await asyncio.gather(*tasks) == [[1], [2], [3, 4], [5]]

    model = Model()
    run(work, model)
    assert model.batches == [1, 4]


def test_a_batch_holds_whole_requests_and_no_more_than_its_limit() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        big = images(*range(10, 19))
        tasks = await held(batcher, images(1), images(2, 3, 4), images(5, 6), big, images(7))
        model.gate.set()
        rows = await asyncio.gather(*tasks)
        assert rows == [[1], [2, 3, 4], [5, 6], list(range(10, 19)), [7]]

    model = Model()
    run(work, model)
    assert model.batches == [1, 3, 2, 9, 1]


def test_a_request_that_fails_fails_alone() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        tasks = await held(batcher, images(1), images(2), images(66), images(3))
        model.gate.set()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
        assert [rows[0], rows[1], rows[3]] == [[1], [2], [3]]
        assert repr(rows[2]) == "ValueError('level 66')"
        assert await batcher(images(4)) == [4]

    model = Model(refuses=66)
    run(work, model)
    assert model.batches == [1, 3, 1, 1, 1, 1]


def test_a_request_that_gave_up_waiting_is_not_run() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        first, second, third = await held(batcher, images(1), images(2), images(3))
        second.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        assert await asyncio.gather(first, third) == [[1], [3]]

    model = Model()
    run(work, model)
    assert model.batches == [1, 1]


def test_a_model_that_hangs_is_seen() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        assert batcher.busy_s() == 0
        (task,) = await held(batcher, images(1))
        await asyncio.sleep(0.02)
        assert batcher.busy_s() >= 0.02
        model.gate.set()
        await task
        assert batcher.busy_s() == 0

    run(work, Model())


def test_many_requests_at_once_each_get_their_own_rows() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        model.gate.set()
        rows = await asyncio.gather(*(batcher(images(at % 251, 3)) for at in range(500)))
        assert rows == [[at % 251, 3] for at in range(500)]

    model = Model()
    run(work, model, most=32)
    assert sum(model.batches) == 1000
    assert max(model.batches) == 32


@pytest.mark.parametrize("most", [1, 3])
def test_the_order_of_requests_is_kept(most: int) -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        done: list[int] = []
        tasks = await held(batcher, *(images(at) for at in range(6)))
        for index, task in enumerate(tasks):
            task.add_done_callback(lambda _, at=index: done.append(at))
        model.gate.set()
        await asyncio.gather(*tasks)
        assert done == list(range(6))

    run(work, Model(), most=most)


def where_it_ran(seconds: float, *requests: int) -> list[str]:
    """Send one request after another to a model that takes so long, however many images it gets."""
    now, threads = 0.0, list[str]()

    def model(pixels: Pixels) -> list[int]:
        nonlocal now
        now += seconds
        here = threading.current_thread() is threading.main_thread()
        threads.append("loop" if here else "thread")
        return [0] * len(pixels)

    async def work() -> None:
        batcher = Batcher(model, most=8, clock=lambda: now)
        for count in requests:
            await batcher(images(*range(count)))

    asyncio.run(work())
    return threads


def test_a_short_model_runs_in_the_loop_once_it_is_known_to_be_short() -> None:
    assert where_it_ran(INLINE_MAX_S, 1, 1, 1) == ["thread", "loop", "loop"]


def test_a_long_model_never_holds_up_the_loop() -> None:
    assert where_it_ran(1.1 * INLINE_MAX_S, 1, 1, 1) == ["thread", "thread", "thread"]


def test_a_batch_expected_to_be_long_goes_to_the_thread_though_its_images_are_short() -> None:
    assert where_it_ran(0.5 * INLINE_MAX_S, 1, 8, 8) == ["thread", "thread", "loop"]


def test_a_failure_in_the_loop_is_the_one_requests_own() -> None:
    async def work(batcher: Batcher[int], model: Model) -> None:
        model.gate.set()
        assert await batcher(images(1)) == [1]
        with pytest.raises(ValueError, match="level 9"):
            await batcher(images(9))
        assert await batcher(images(2)) == [2]

    run(work, Model(refuses=9))

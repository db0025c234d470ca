"""Dynamic batching: what waits runs as one batch as soon as the model is free, never later.

A lone request goes to the model at once. While the model is busy the others gather, and go
together when it is done: the batch grows with the load by itself, nothing is tuned or learnt, and
nothing is refused here (ADR 0028 has the measurements against BentoML's own batching).

A batch that is expected to take less than INLINE_MAX_S runs in the event loop itself: to hand it to
a thread and back takes as long as a small model does, and they contend for the interpreter.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from fettle.preprocessing import Pixels

Row = TypeVar("Row")

# Measured on a model of 0.9 ms for 32 images: 1.5 times the requests/s over one link. Longer would
# hold up the health checks; the other requests wait for the model either way.
INLINE_MAX_S = 0.003


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[Row]):
    pixels: Pixels
    rows: asyncio.Future[list[Row]]


class Batcher(Generic[Row]):
    """Give many small requests to `run` as few large ones, `most` images at a time.

    `run` maps uint8 [N, C, S, S] to N rows; it is called in the event loop or in one thread of its
    own, never twice at once. Requests are never split: one larger than `most` goes alone.
    """

    def __init__(
        self,
        run: Callable[[Pixels], Sequence[Row]],
        *,
        most: int,
        note: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._most = most
        self._note = note  # told the size of every batch
        self._clock = clock
        self._queue: deque[_Waiting[Row]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._running: asyncio.Task[None] | None = None
        self._since: float | None = None
        self._image_s = math.inf  # of the last batch; the first one is not trusted to be short

    async def __call__(self, pixels: Pixels) -> list[Row]:
        """Return the rows of these images; raises what `run` raised on them."""
        loop = asyncio.get_running_loop()
        one: _Waiting[Row] = _Waiting(pixels, loop.create_future())
        self._queue.append(one)
        if self._running is None:
            self._running = loop.create_task(self._work(loop))
        return await one.rows

    def busy_s(self) -> float:
        """Return for how long the present batch has been running; 0 when none is."""
        return 0.0 if self._since is None else self._clock() - self._since

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while batch := self._take():
                await self._together(loop, batch)
        finally:
            self._running = None

    def _take(self) -> list[_Waiting[Row]]:
        """Take whole requests up to `most` images, without those that gave up waiting."""
        batch: list[_Waiting[Row]] = []
        images = 0
        while self._queue and (not batch or images + len(self._queue[0].pixels) <= self._most):
            one = self._queue.popleft()
            if not one.rows.done():
                batch.append(one)
                images += len(one.pixels)
        return batch

    async def _together(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting[Row]]
    ) -> None:
        """Run a batch; when it fails, run each request alone, so that only its cause fails."""
        pixels = [one.pixels for one in batch]
        whole = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
        self._note(len(whole))
        self._since = self._clock()
        try:
            rows = await self._rows(loop, whole)
        except Exception as err:  # whatever the model raised belongs to those who asked
            if len(batch) > 1:
                for one in batch:
                    await self._together(loop, [one])
            elif not batch[0].rows.done():
                batch[0].rows.set_exception(err)
            return
        finally:
            self._since = None
        at = 0
        for waiting in batch:
            if not waiting.rows.done():
                waiting.rows.set_result(list(rows[at : at + len(waiting.pixels)]))
            at += len(waiting.pixels)

    async def _rows(self, loop: asyncio.AbstractEventLoop, images: Pixels) -> Sequence[Row]:
        """Run the model here when it is short, else in its thread; remember how long it took."""
        started = self._clock()
        if self._image_s * len(images) <= INLINE_MAX_S:
            rows = self._run(images)
        else:
            rows = await loop.run_in_executor(self._thread, self._run, images)
        self._image_s = (self._clock() - started) / len(images)
        return rows

"""Bounded thread map: a function over a stream in a few threads, in order, with few in flight.

Pillow and hashlib let other threads run while they work, so that decoding takes all cores; an
executor's own `map` would read the whole stream first.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS_MAX = 4  # each holds an image decoded: what they take must not grow with the machine
AHEAD = 2  # items a thread that wait for it or for whoever reads


def threads() -> int:
    """Threads to decode with: the cores that this process may use, so many at most."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(THREADS_MAX, found or 1))


def bounded_thread_map(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield `function(item)` of each item in order; what it raises comes at its item's place."""
    workers = threads()
    if workers == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

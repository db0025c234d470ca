"""A model in a worker is a session as any other, and is timed and weighed where it runs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware import latency_measurement
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.isolated_worker import Worker

FAKE = Path(__file__).resolve().parents[2] / "support" / "fake_toolchain.py"


def opened(folder: Path, **told: object) -> IsolatedSession:
    entry = folder / "model.json"
    entry.write_text(json.dumps(told))
    return IsolatedSession(Worker("Fake", Path(sys.executable), FAKE), entry, 1)


def wanted(batch: np.ndarray) -> np.ndarray:
    means = batch.reshape(len(batch), -1).mean(axis=1)
    return np.stack([means, -means], axis=1)


def test_a_session_answers_as_the_model_does_for_batches_of_any_size(tmp_path: Path) -> None:
    session = opened(tmp_path)
    assert session.input_shape == (None, 1, 8, 8)
    for count in (12, 300, 1):  # a longer answer, then a shorter one: nothing of it is left
        batch = tiny_onnx.images(count, seed=count)
        logits = session.run(batch)
        assert (logits.dtype, logits.shape) == (np.float32, (count, 2))
        assert logits == pytest.approx(wanted(batch), abs=1e-6)


def test_a_batch_that_is_a_view_of_another_array_arrives_as_it_is(tmp_path: Path) -> None:
    batch = tiny_onnx.images(8)[::2, :, ::-1]
    assert opened(tmp_path).run(batch) == pytest.approx(wanted(batch), abs=1e-6)


def test_a_batch_that_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    session = opened(tmp_path)
    for call in (session.run, session.bind):
        with pytest.raises(ModelError) as caught:
            call(np.zeros((1, 3, 8, 8), np.float32))
        assert str(caught.value).startswith(
            "the batch does not fit the model: got float32 [1, 3, 8, 8]; "
            "it takes float32 [any, 1, 8, 8]"
        )


def test_a_model_of_one_image_takes_a_batch_one_by_one(tmp_path: Path) -> None:
    batch = tiny_onnx.images(3)
    assert opened(tmp_path, shape=[1, 1, 8, 8]).run(batch) == pytest.approx(wanted(batch), abs=1e-6)


def test_several_threads_may_run_one_session(tmp_path: Path) -> None:
    session, batches = opened(tmp_path), [tiny_onnx.images(5, seed=seed) for seed in range(8)]
    answers: dict[int, np.ndarray] = {}

    def work(at: int) -> None:
        for _ in range(10):
            answers[at] = session.run(batches[at])

    threads = [Thread(target=work, args=(at,)) for at in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, batch in enumerate(batches):
        assert answers[index] == pytest.approx(wanted(batch), abs=1e-6)


def test_a_time_is_taken_in_the_worker_without_the_way_there(tmp_path: Path) -> None:
    bound = opened(tmp_path, slow_ms=20).bind(tiny_onnx.images(4))
    began = time.perf_counter()
    times = [bound.time_ms() for _ in range(5)]
    outside_ms = (time.perf_counter() - began) * 1000 / 5
    assert all(20 <= ms < 40 for ms in times)
    assert outside_ms > 2 * min(times)  # an untimed run goes before each


def test_the_rounds_of_a_comparison_ask_the_worker_for_its_time(tmp_path: Path) -> None:
    slow = opened(tmp_path, slow_ms=10).bind(tiny_onnx.images(1))
    times = latency_measurement.interleave(
        {"isolated": slow, "here": lambda: time.sleep(0.001)}, rounds=5, seed=0, warm_up=1
    )
    assert 10 <= np.median(times["isolated"]) < 20
    assert np.median(times["here"]) < 10
    clock = latency_measurement.interleave(
        {"isolated": slow}, rounds=2, seed=0, warm_up=0, clock=lambda: 7
    )
    assert min(clock["isolated"]) >= 10  # this process's clock, which stands still, was not asked


def test_batches_of_two_sizes_wait_side_by_side(tmp_path: Path) -> None:
    session = opened(tmp_path)
    one, many = session.bind(tiny_onnx.images(1)), session.bind(tiny_onnx.images(16))
    assert {one.number, many.number} == {0, 1}
    assert one() is None
    assert many() is None


def test_the_memory_of_a_model_is_what_it_adds_in_a_fresh_worker(tmp_path: Path) -> None:
    def added(megabytes: int) -> int:
        entry = tmp_path / f"{megabytes}.json"
        entry.write_text(json.dumps({"megabytes": megabytes}))
        words = {"entry": str(entry), "threads": 1, "shape": [1, 1, 8, 8]}
        with Worker("Fake", Path(sys.executable), FAKE) as worker:
            return int(worker.ask("memory", words)["bytes"])

    assert 55e6 < added(64) - added(4) < 65e6


def test_a_model_that_dies_as_it_runs_is_told(tmp_path: Path) -> None:
    session = opened(tmp_path, dies_on_run=True)
    with pytest.raises(ModelError, match=r"^Fake could not run the model: got it was ended by SIG"):
        session.run(tiny_onnx.images(1))

"""Predict latencies from measured kernels; costs are made up here, so the answers are known."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from fettle.errors import ProjectError
from fettle.hardware import machine_fingerprint, operator_cost_fit, operator_cost_table
from fettle.hardware.operator_cost_table import Costs, CostSample, NetworkTiming, PredictionCheck
from fettle.operator_shape import Operator

GLUE_MS, SHARE, EACH_MS = 0.02, 0.8, 0.001


def conv(inputs: int, outputs: int, *, size: int = 16, groups: int = 1) -> Operator:
    return Operator(
        name=f"{inputs}-{outputs}", kind="conv", inputs=inputs, outputs=outputs,
        height=size, width=size, kernel=(3, 3), groups=groups,
    )  # fmt: skip


def kernel_ms(one: Operator) -> float:
    """The true cost of a kernel: it grows with what it reads and with its work."""
    return 0.002 + 1e-5 * one.outputs * one.height / 16 + 2e-9 * one.macs


def net(*channels: int, size: int = 16, deep: int = 1) -> NetworkTiming:
    """A chain of convolutions; `deep` repeats it."""
    chain = [conv(a, b, size=size) for a, b in itertools.pairwise(channels)] * deep
    ms = GLUE_MS + sum(SHARE * kernel_ms(one) + EACH_MS for one in chain)
    return NetworkTiming(tuple(chain), ms, GLUE_MS)


def learnt(checks: tuple[NetworkTiming, ...]) -> Costs:
    rng = np.random.default_rng(0)
    nets = [net(*map(int, rng.integers(8, 128, 4)), deep=1 + at % 3) for at in range(14)]
    samples = [
        CostSample(operator, kernel_ms(operator))
        for one_net in nets
        for operator in one_net.operators
    ]
    return operator_cost_fit.fit(samples, nets, checks)


def test_an_unseen_width_is_predicted_from_its_neighbours() -> None:
    unseen = net(10, 77, 33, 121)
    costs = learnt((unseen,))
    found = operator_cost_table.predict(costs, unseen.operators)
    assert found.value == pytest.approx(unseen.ms, rel=0.02)
    assert found.unit == "ms"
    assert found.n == 1


def test_an_unseen_size_falls_back_on_the_same_operator_elsewhere() -> None:
    unseen = net(32, 64, 64, size=24)
    found = operator_cost_table.predict(learnt((unseen,)), unseen.operators)
    assert found.value == pytest.approx(unseen.ms, rel=0.15)


def test_depth_counts_not_only_work() -> None:
    costs = learnt((net(16, 16),))
    shallow, deep = net(16, 32, 16), net(16, 32, 16, deep=4)
    ratio = (
        operator_cost_table.predict(costs, deep.operators).value
        / operator_cost_table.predict(costs, shallow.operators).value
    )
    assert ratio == pytest.approx(deep.ms / shallow.ms, rel=0.05)


def test_the_interval_is_the_error_made_on_unknown_networks() -> None:
    truth = net(24, 48, 24)
    slower = NetworkTiming(truth.operators, truth.ms * 1.25)
    costs = learnt((slower,))
    assert costs.error == pytest.approx(0.2, abs=0.02)
    found = operator_cost_table.predict(costs, truth.operators)
    assert found.high is not None
    assert found.high >= slower.ms * 0.99


def test_without_a_check_there_is_no_interval() -> None:
    costs = learnt(())
    found = operator_cost_table.predict(costs, net(16, 16).operators)
    assert costs.error is None
    assert (found.low, found.n) == (None, 1)


def test_a_hiccup_of_the_machine_does_not_bend_the_table() -> None:
    rng = np.random.default_rng(0)
    nets = [net(*map(int, rng.integers(8, 128, 4)), deep=1 + at % 3) for at in range(14)]
    samples = [
        CostSample(operator, kernel_ms(operator))
        for one_net in nets
        for operator in one_net.operators
    ]
    nets[5] = NetworkTiming(nets[5].operators, nets[5].ms * 6, GLUE_MS)
    unseen = net(10, 77, 33, 121)
    costs = operator_cost_fit.fit(samples, nets, (unseen,))
    assert costs.error == pytest.approx(0, abs=0.03)


def outgrown(share: float) -> NetworkTiming:
    """A chain at a share of its widths whose weights beyond a million wait for the memory."""
    small = net(*(int(width * share) for width in (64, 320, 480, 320)), size=8)
    beyond = sum(operator.weights for operator in small.operators) - 1e6
    return NetworkTiming(small.operators, small.ms + 1e-7 * max(0.0, beyond), GLUE_MS)


def test_weights_that_outgrow_a_cache_do_not_slow_the_networks_within_it() -> None:
    nets = [outgrown(share) for share in np.geomspace(1, 1 / 8, 14)]
    samples = [
        CostSample(operator, kernel_ms(operator))
        for one_net in nets
        for operator in one_net.operators
    ]
    costs = operator_cost_fit.fit(
        samples, nets, tuple(outgrown(share) for share in (0.85, 0.6, 0.3))
    )
    # by the weights alone 0.18, by their square 0.065
    assert costs.error is not None
    assert costs.error < 0.08


def test_more_channels_never_cost_less() -> None:
    rng = np.random.default_rng(3)
    nets = [net(*map(int, rng.integers(8, 128, 4))) for _ in range(14)]
    noisy = [
        CostSample(operator, kernel_ms(operator) * float(rng.uniform(0.5, 1.5)))
        for one_net in nets
        for operator in one_net.operators
    ]
    costs = operator_cost_fit.fit(noisy, nets, ())
    times = [operator_cost_table.shares(costs, [conv(c, c)])[0] for c in range(8, 200, 8)]
    assert times == sorted(times)


def test_what_a_runtime_fuses_takes_no_time() -> None:
    nets = [net(16, 16 + 8 * at, 16) for at in range(14)]
    add = Operator(name="add", kind="add", inputs=16, outputs=16, height=16, width=16)
    samples = [CostSample(operator, kernel_ms(operator)) for n in nets for operator in n.operators]
    costs = operator_cost_fit.fit([*samples, CostSample(add, 0.0)], nets, ())
    assert operator_cost_table.shares(costs, [add]) == [0.0]


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    costs = learnt((net(10, 20),))
    operator_cost_table.write(tmp_path / "t.json", {"x86_ort_fp32": costs}, threads=1)
    here = json.loads(json.dumps(machine_fingerprint.fingerprint()))
    back = operator_cost_table.read(tmp_path / "t.json", here)["x86_ort_fp32"]
    assert back == costs
    assert isinstance(back.checks[0], PredictionCheck)


def test_a_table_of_another_machine_is_refused(tmp_path: Path) -> None:
    operator_cost_table.write(tmp_path / "t.json", {"x86_ort_fp32": learnt(())}, threads=1)
    elsewhere = {**json.loads(json.dumps(machine_fingerprint.fingerprint())), "cpu": "another"}
    with pytest.raises(ProjectError) as caught:
        operator_cost_table.read(tmp_path / "t.json", elsewhere)
    assert str(caught.value) == (
        "the table of latencies was measured on another machine: got "
        f"cpu: {machine_fingerprint.fingerprint()['cpu']} there, another here; a latency is a fact "
        "about a machine: no prediction here may rest on it. Fix: run `fettle run`: it measures "
        "the table again."
    )


def test_an_empty_table_names_no_machine(tmp_path: Path) -> None:
    operator_cost_table.write(tmp_path / "t.json", {}, threads=1)
    assert json.loads((tmp_path / "t.json").read_text())["machine"] == {}
    assert operator_cost_table.read(tmp_path / "t.json", {"cpu": "any"}) == {}

"""Gate thresholds of a plan: margins, alphas and looks at each step, as arrays.

A step is looked at by its e-processes after every request, by its spans (span_test.py) at a few
fixed blocks of its budget. Each look's share of the error stands here, and they add up to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.rollout.promotion.block_series import BLOCKS
from fettle.rollout.promotion.e_process import Bools, Floats
from fettle.rollout.promotion.rollout_plan import FAST_SHARE, RolloutPlan

# Blocks after which the last step may pass, and each look's share of alpha_promote. Not before
# a quarter of the budget: a cluster that comes a few times in that long is seen (measured, by
# `make sim-canary`: bursts of 200 requests that make up a point of errors).
LAST_LOOKS = {52: 0.45, 58: 0.2, 66: 0.1, 80: 0.1, 104: 0.05, 140: 0.05, 192: 0.05}
# Steps with a wide margin pass as soon as they can.
WIDE_LOOKS = dict.fromkeys((10, 14, 18, 22, 28, 36, 48, 64, 96, 128, 192), 1 / 11)
# Blocks after which spans may roll back: none is shorter than two blocks.
FAIL_LOOKS = (24, 32, 44, *LAST_LOOKS)


@dataclass(frozen=True)
class Thresholds:
    """What a plan asks at each step: arrays [steps], thresholds as logs of e-values.

    pass_alpha, fail_alpha: by blocks, 0 where there is no look; a gate's own share is in
    `fail_alpha`.
    """

    errors_margin: Floats
    log_ratio: Floats
    by_spans: Bools  # whether rates pass by their spans: where the margin is the plan's own
    needs: dict[str, Bools]
    log_fail: dict[str, float]
    log_pass: Floats
    log_pass_labels: float
    log_alarm: float
    pass_alpha: Floats  # [steps, blocks + 1]
    fail_alpha: dict[str, Floats]  # [blocks + 1] each
    block_size: int
    images: int

    @classmethod
    def of(cls, plan: RolloutPlan, images: int | None = None) -> Thresholds:
        """Read them off the plan; `images` are held out for the shadow, where that is known."""
        times = np.array([step.margin_multiplier for step in plan.steps])
        last = times == 1
        looks = [LAST_LOOKS if one else WIDE_LOOKS for one in last]
        alphas = np.where(last, plan.alpha_promote, plan.alpha_wide)
        return cls(
            errors_margin=np.minimum(times * plan.errors_margin, 1.0),
            log_ratio=np.log1p(times * (plan.latency_p95_ratio - 1)),
            by_spans=last,
            needs={
                name: np.array([name in step.gates for step in plan.steps])
                for name in ("errors", "latency", "accuracy")
            },
            log_fail={
                "accuracy": -float(np.log(plan.alpha_fail("accuracy"))),
                **{
                    name: -float(np.log(share * plan.alpha_fail(name)))
                    for name, share in FAST_SHARE.items()
                    if share
                },
            },
            log_pass=-np.log(alphas),
            log_pass_labels=-float(np.log(plan.alpha_promote)),
            log_alarm=-float(np.log(plan.alpha_rollback)),
            pass_alpha=np.stack(
                [alpha * _by_blocks(one) for alpha, one in zip(alphas, looks, strict=True)]
            ),
            fail_alpha={
                name: (1 - share)
                * plan.alpha_fail(name)
                * _by_blocks(dict.fromkeys(FAIL_LOOKS, 1 / len(FAIL_LOOKS)))
                for name, share in FAST_SHARE.items()
            },
            block_size=max(1, plan.step_budget_requests // BLOCKS),
            images=plan.shadow_requests if images is None else images,
        )


def _by_blocks(shares: dict[int, float]) -> Floats:
    found: npt.NDArray[np.float64] = np.zeros(BLOCKS + 1)
    found[list(shares)] = list(shares.values())
    return found

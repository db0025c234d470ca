"""Documents of a search, a sensitivity analysis and a profile, with invented numbers."""

from __future__ import annotations

from typing import Any


def searched() -> dict[str, Any]:
    """What a search of a dozen recipes leaves (fettle/recipes/search_report.py)."""
    trials: list[dict[str, Any]] = []
    for at in range(12):
        prune = {"use": "prune", "keep_fraction": round(0.9 - 0.07 * at, 2)}
        recipe = [] if at == 0 else [prune] if at % 3 else [prune, {"use": "distil", "epochs": 16}]
        verdict = "chosen" if at == 9 else "kept" if at in (0, 3) else "beaten" if at < 9 else ""
        trials.append(
            {
                "number": at,
                "parent": at - 1,
                "role": "shrink",
                "recipe": recipe,
                "verdict": verdict or "refused",
                "reason": "the budget would hold on test with probability 0.31, below 0.70"
                if not verdict
                else "another trial is better in the objective and loses no more",
                "value": 1.6 * 0.8**at,
                "drop": 0.0006 * at**2 - (0.01 if at % 3 == 0 and at else 0.0),
                "foreseen_drop": 0.0007 * at**2 if at else None,
                "chance": 0.9 - 0.05 * at,
                "bought": "1.25x less (ms, predicted)",
                "cost": "+0.50 points on validation",
            }
        )
    broken = {"use": "low_rank", "rank": 4}
    trials.append(
        {
            "number": 12,
            "parent": 3,
            "role": "shrink",
            "recipe": [broken],
            "verdict": "refused",
            "reason": "no layer is <large> enough",
        }
    )
    return {
        "objective": {"minimise": "latency_p50_ms", "on": "x86_ort_int8"},
        "budget": {"metric": "accuracy", "drop_max": 0.02, "confidence": 0.95},
        "unit": "ms, predicted",
        "priced_by": "the latency table of x86_ort_int8",
        "evaluations": 12,
        "evaluations_max": 24,
        "ended": "settled",
        "truncated": False,
        "goal_met": True,
        "why": "after 12 evaluations nothing promised more",
        "chance_min": 0.7,
        "best": 9,
        "front": [0, 3, 9],
        "aim": "objective",
        "recipe": trials[9]["recipe"],
        "recipe_yaml": "recipe:\n- {use: prune, keep_fraction: 0.27}\n",
        "predictor": {"drop_mean_absolute_error": 0.006, "rank_correlation": 0.83},
        "curve": [],
        "trials": trials,
    }


def sensitivity() -> dict[str, Any]:
    """What the loss says to each part (fettle/compress/sensitivity_analysis.py)."""
    shares = (0.75, 0.5, 0.25)
    groups = [
        {
            "name": f"blocks.{at}",
            "width": 16,
            "layers": [f"blocks.{at}.conv"],
            "losses": [[s, 0.02 * (at + 1) * (1 - s) ** 2] for s in shares],
        }
        for at in range(12)
    ]
    block = {"name": "blocks.4", "layers": [], "params": 1, "macs": 1, "loss_increase": 0.11}
    return {"loss": 0.05, "images": 256, "blocks": [block], "groups": groups, "skipped": {}}


def profiled(scale: float, *, int8: bool) -> dict[str, Any]:
    """What a profile of a file adds up to (fettle/hardware/kernel_profile.py)."""
    conv = "QLinearConv" if int8 else "Conv"
    kinds = [(conv, 49, 1.1), ("Add", 12, 0.09), ("Gather", 1, 0.03), ("ReduceMean", 1, 0.02)]
    return {
        "ms": 1.24 * scale,
        "heavy_share": 0.887,
        "int8_share": 0.887 if int8 else 0.0,
        "int8_bound": 2.99,
        "kinds": [
            {"kind": k, "kernels": n, "ms": ms * scale, "int8_share": float(int8 and k == conv)}
            for k, n, ms in kinds
        ],
        "slowest": [{"name": "hardtanh_2_nchwc", "kind": conv, "ms": 0.07 * scale}],
    }


def validation_document(facts: dict[str, Any], checks: list[dict[str, Any]]) -> dict[str, Any]:
    """What Great Expectations found (fettle/data/validation_page.py)."""
    limits = {"labels": None, "class_images_min": 10, "class_imbalance_max": 3.0}
    limits |= {"size_px_min": 8, "size_px_max": 64, "null_max_fraction": 0.0}
    asked = {"table": "images", "expectation": "expect_column_values_to_be_in_set"}
    asked |= {"arguments": {}, "elements": 60, "broken": 0, "examples": [], "fix": "mend it"}
    return {
        **facts,
        "kept": 59,
        "overview": {"format": {"PNG": 60}},
        "limits": limits,
        "great_expectations": "1.0",
        "checks": [check | asked for check in checks],
    }

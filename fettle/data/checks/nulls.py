"""Missing values: rows without a label, and rows without a group where others have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fettle.data.checks import CheckLimits, Failing, Rule

if TYPE_CHECKING:
    import pandas as pd


def derive(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Return `label_given`, the label again, and `group_gap`.

    The latter is "yes" for a row without a group, null when no row has one.
    """
    missing = frame["group"].isna()
    used = not missing.all()
    return {
        "label_given": frame["label"],
        "group_gap": missing.map({True: "yes" if used else None, False: None}),
    }


def rules(limits: CheckLimits) -> list[Rule]:
    """Set rows without a label aside, and bound their share."""
    mostly = 1 - limits.null_max_fraction
    most = f"{limits.null_max_fraction:.2%}"
    return [
        Rule(
            name="label_missing",
            says="every image has a label",
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": "label"},
            failing=Failing.QUARANTINE,
            reason="no label",
        ),
        Rule(
            name="label_null_share",
            says=f"at most {most} of the images have no label (validate.null_max_fraction)",
            # a column of its own: a suite drops an expectation that equals an earlier one
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": "label_given", "mostly": mostly},
            failing=Failing.REFUSE,
            reason="no label",
            fix="label them or take them out, or raise validate.null_max_fraction in params.yaml",
        ),
        Rule(
            name="group_null_share",
            says=f"where groups are in use, at most {most} of the images have none",
            expectation="ExpectColumnValuesToBeNull",
            arguments={"column": "group_gap", "mostly": mostly},
            failing=Failing.WARN,
            reason="no group",
            fix="give these images a group: they may be in another split than their like",
        ),
    ]

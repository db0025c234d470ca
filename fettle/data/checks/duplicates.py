"""Equal files, by content digest, within a split and across splits.

One copy is kept, in the test split if it is there, else in validation: so the test set stays
whole, and no image of it is trained on. Equal files with different labels are all set aside,
since at least one label is wrong. Files that cannot be decoded are left to that rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fettle.data.checks import CheckLimits, Failing, Rule
from fettle.data.image_table import SPLITS

if TYPE_CHECKING:
    import pandas as pd


def derive(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Return `copy_of` (the split and id of the copy kept) and `conflict` (the labels), or null."""
    import pandas as pd

    usable = frame[frame["error"].isna() & frame["label"].notna()]
    equal = usable[usable.duplicated("sha256", keep=False)]
    columns = {
        name: pd.Series(None, index=frame.index, dtype="str") for name in ("copy_of", "conflict")
    }
    for _, copies in equal.groupby("sha256"):
        labels = sorted(set(copies["label"]))
        if len(labels) > 1:
            columns["conflict"][copies.index] = ", ".join(f"'{label}'" for label in labels)
            continue
        ranked = sorted(
            zip(copies["split"], copies["row"], copies.index, strict=True),
            key=lambda one: (-SPLITS.index(one[0]), one[1]),
        )
        split, row, _ = ranked[0]
        columns["copy_of"][[at for _, _, at in ranked[1:]]] = f"{split} row '{row}'"
    return columns


def rules(limits: CheckLimits) -> list[Rule]:
    """Set aside all but one of equal files, and all whose labels disagree."""
    del limits
    return [
        Rule(
            name="duplicate",
            says="every image is there once, in one split",
            expectation="ExpectColumnValuesToBeNull",
            arguments={"column": "copy_of"},
            failing=Failing.QUARANTINE,
            reason="the same bytes as {copy_of}",
        ),
        Rule(
            name="label_conflict",
            says="equal images have equal labels",
            expectation="ExpectColumnValuesToBeNull",
            arguments={"column": "conflict"},
            failing=Failing.QUARANTINE,
            reason="the same bytes are labelled {conflict}",
        ),
    ]

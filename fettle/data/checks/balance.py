"""Class sizes after quarantine: enough images, some in every split, and even enough."""

from __future__ import annotations

from fettle.data.checks import CheckedTable, CheckLimits, Failing, Rule
from fettle.data.image_table import SPLITS


def rules(limits: CheckLimits) -> list[Rule]:
    """Bound the classes' sizes; imbalance only warns, since training can make up for it."""
    return [
        Rule(
            name="class_count",  # labels.py counts before quarantine: 'cat ' is a class there
            says="at least two classes are left after quarantine",
            expectation="ExpectTableRowCountToBeBetween",
            arguments={"min_value": 2},
            failing=Failing.REFUSE,
            fix="mend the labels of the images set aside, or add images of another class",
            table=CheckedTable.CLASSES,
        ),
        Rule(
            name="class_images",
            says=f"every class has at least {limits.class_images_min} usable images "
            "(validate.class_images_min)",
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": "images", "min_value": limits.class_images_min},
            failing=Failing.REFUSE,
            reason="class '{label}' has {images}",
            fix="add images, drop the class, or lower validate.class_images_min in params.yaml",
            table=CheckedTable.CLASSES,
        ),
        *(
            Rule(
                name=f"class_in_{split}",
                says=f"every class has usable images in {split}",
                expectation="ExpectColumnValuesToBeBetween",
                arguments={"column": split, "min_value": 1},
                failing=Failing.REFUSE,
                reason="class '{label}' has none",
                fix="add images (or groups) of that class, or change ingest.split in params.yaml",
                table=CheckedTable.CLASSES,
            )
            for split in SPLITS
        ),
        *_imbalance(limits.class_imbalance_max),
    ]


def _imbalance(most: float | None) -> list[Rule]:
    if most is None:
        return []
    return [
        Rule(
            name="class_imbalance",
            says=f"the largest class is at most {most:g} times the smallest "
            "(validate.class_imbalance_max)",
            expectation="ExpectColumnMaxToBeBetween",
            arguments={"column": "times_smallest", "max_value": most},
            failing=Failing.WARN,
            fix="add images of the small classes, or set finetune.imbalance in params.yaml",
            table=CheckedTable.CLASSES,
        )
    ]

"""Choice images: training images held out to choose rate, epoch and head by.

Not the validation split, on which compression is searched for and files are selected: what is
chosen twice on the same images looks better than it is.
"""

from __future__ import annotations

import numpy as np

from fettle.data.split_reader import Images
from fettle.data.splitting import SplitTable, assign_fold
from fettle.errors import DataError

# More images choose no better: 1,000 tell 92 % from 90 %, and the others are needed to learn from.
# Few cannot choose at all: 40 tell 80 % from 60 %.
IMAGES_MIN, IMAGES_MAX = 40, 1000
FRACTION_MAX = 0.25  # of a small set, IMAGES_MIN would be most


def hold_out(train: Images, *, fraction: float, seed: int) -> tuple[Images, Images]:
    """Divide training images into those to learn from and those to choose by.

    Classes are divided by the fraction, rows of one group stay together, and the same rows and seed
    give the same division (see fettle/data/splitting.py). Raises DataError when a part is empty.
    """
    count = len(train.ids)
    wanted = min(max(fraction * count, IMAGES_MIN), IMAGES_MAX, FRACTION_MAX * count)
    folds = max(2, round(count / max(1.0, wanted)))
    table = SplitTable(train.ids, [train.classes[label] for label in train.labels], train.groups)
    split = assign_fold(
        table, {"train": 1.0, "validation": 1.0, "test": 1.0}, number=1, of=folds, seed=seed
    )
    chosen = np.array([name == "test" for name in split])
    if chosen.all() or not chosen.any():
        raise DataError(
            "the training images cannot be divided into those to learn from and those to choose by",
            got=f"{count} images, {len(set(train.groups) - {None})} groups",
            rule="images of one group stay together, and each part needs some",
            fix="add images or groups, or set finetune.choice_fraction to 0 and what is auto in "
            "the section finetune to a value",
        )
    return train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen))

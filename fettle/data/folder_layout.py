"""Read the splits off a folder of images: train/validation/test with the classes inside, or around.

    split/class/…   data/train/cat, data/train/dog, data/test/cat, …
    class/split/…   data/cat/train, data/cat/test, data/dog/train, …
    class/…         data/cat, data/dog: the data names no split

A folder is a split by its name: train, val, valid, validation, test and a few more (`split_of`), in
any case. A class may be called `train` too, so a name alone decides nothing: the splits are taken
where every folder of a level bears such a name. What could be read in two ways is refused with the
folders' names; ingest.options.splits says which way.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.errors import DataError

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
NUMBERED = {"fold", "part", "batch", "split", "subset", "shard"}  # fold1, fold2, …
FILLING = {"set", "data", "dataset", "split", "images", "imgs"}  # test_set, train-images
FIX = "rename or move these folders, or, if they are classes, set ingest.options.splits: classes"


@dataclass(frozen=True, slots=True)
class Part:
    """One folder of images: of which class, and of which split if the data names one."""

    folder: Path
    label: str
    split: str | None


def split_of(name: str) -> str | None:
    """Return train, validation or test of a name that says so: 'Val', 'test_set'; else None."""
    words = [word for word in re.split(r"[\s_.-]+", name.casefold()) if word not in FILLING]
    only = "".join(words) if sum(map(bool, words)) == 1 else ""
    return WORDS.get(only) or WORDS.get(re.sub(r"(set|data)$", "", only))


def label_of(name: str) -> str:
    """Return a class's name: accents are composed, as a Mac's file system takes them apart."""
    return unicodedata.normalize("NFC", name)


# What lies directly in a folder: its folders, and whether it has images of its own.
Look = Callable[[Path], tuple[list[Path], bool]]


def parts(root: Path, folders: Sequence[Path], look: Look) -> list[Part]:
    """Return the folders of images below `root`, whose class or split folders are `folders`.

    Raises DataError where the layout can be read in two ways.
    """
    inside = {folder: look(folder) for folder in folders}
    below = {folder: found for folder, (found, _) in inside.items()}
    loose = [folder for folder, (_, images) in inside.items() if images]
    if around := _class_around(root, below, loose):
        return around
    return _split_around(root, below) or [
        Part(folder, label_of(folder.name), None) for folder in folders
    ]


def _class_around(
    root: Path, below: Mapping[Path, Sequence[Path]], loose: Sequence[Path]
) -> list[Part]:
    """Read class/split; empty where it is not that."""
    named = {
        folder: [one for one in inside if split_of(one.name)] for folder, inside in below.items()
    }
    sure = [f for f, found in named.items() if len({split_of(one.name) for one in found}) > 1]
    if not sure or (len(below) == 1 and not loose):
        return []  # a lone folder around the splits is no class: `list_folder` says so
    if all(split_of(folder.name) for folder in below):
        raise _ambiguous(
            root, [one for folder in sure for one in below[folder]], "splits lie within splits"
        )
    odd = [f for f, inside in below.items() if not inside or len(named[f]) < len(inside)]
    if mixed := sorted({*odd, *loose}):
        raise _ambiguous(
            root,
            [*named[sure[0]], *mixed],
            f"{_below(root, sure[0])} is divided into splits, and {_list(root, mixed)} "
            f"{'holds' if len(mixed) == 1 else 'hold'} something else",
        )
    for found in named.values():
        _refuse_double(root, found)
    return [
        Part(one, label_of(folder.name), split_of(one.name))
        for folder, found in named.items()
        for one in found
    ]


def _split_around(root: Path, below: Mapping[Path, Sequence[Path]]) -> list[Part]:
    """Read split/class; empty where it is not that."""
    splits = [folder for folder in below if split_of(folder.name)]
    others = [folder for folder in below if folder not in splits]
    if not splits:
        hinted = [folder for folder in below if _hints(folder.name)]
        if len(hinted) > 1 and len(hinted) == len(below) and _shared(hinted, below):
            raise _ambiguous(
                root, hinted, "the names speak of splits, and the same classes lie in each"
            )
        return []
    deep = [folder for folder in splits if below[folder]]
    if others:
        if len(deep) > 1 or (deep and any(_shared([deep[0], other], below) for other in others)):
            raise _ambiguous(
                root,
                [*deep, *others],
                f"{_list(root, deep)} read as splits, {_list(root, others)} not",
            )
        return []
    if flat := [folder for folder in splits if not below[folder]]:
        if len(splits) == 1:
            return []
        raise _ambiguous(
            root,
            flat,
            "they read as splits, and have no class folders",
            fix="put a folder for each class into each of them, or name a CSV or Parquet file with "
            "path, label and split; if they are the classes, set ingest.options.splits: classes",
        )
    found = [Part(one, label_of(one.name), split_of(f.name)) for f in splits for one in below[f]]
    _refuse_double(root, splits)
    if all(split_of(part.folder.name) for part in found):
        raise _ambiguous(root, [part.folder for part in found], "splits lie within splits")
    if not any(part.split == "train" for part in found):
        raise DataError(
            f"the splits of {root} have no train among them",
            got=_list(root, splits),
            rule="training needs images",
            fix=FIX,
        )
    return found


def _hints(name: str) -> bool:
    words = re.split(r"[\W_\d]+", name.casefold())
    numbered = any(letter.isdigit() for letter in name)
    return any(word in WORDS or (numbered and word in NUMBERED) for word in words)


def _shared(folders: Sequence[Path], below: Mapping[Path, Sequence[Path]]) -> bool:
    """Tell whether some sub-folder's name is in each of these folders."""
    names = [{label_of(one.name).casefold() for one in below[folder]} for folder in folders]
    return bool(set.intersection(*names))


def _refuse_double(root: Path, folders: Sequence[Path]) -> None:
    """Refuse two folders for one split, as `val` beside `valid`."""
    seen: dict[str | None, Path] = {}
    for folder in folders:
        other = seen.setdefault(split_of(folder.name), folder)
        if other is not folder:
            raise _ambiguous(root, [other, folder], f"both name the split {split_of(folder.name)}")


def _ambiguous(root: Path, folders: Sequence[Path], why: str, *, fix: str = FIX) -> DataError:
    return DataError(
        f"the folders of {root} can be read in two ways",
        got=f"{_list(root, list(dict.fromkeys(folders)))}: {why}",
        rule="it holds a folder for each class, or train, validation and test with the classes "
        "in each, or the classes with train, validation and test in each",
        fix=fix,
    )


def _list(root: Path, folders: Sequence[Path], most: int = 6) -> str:
    more = f" and {len(folders) - most} more" if len(folders) > most else ""
    return ", ".join(_below(root, folder) for folder in folders[:most]) + more


def _below(root: Path, folder: Path) -> str:
    return f"'{folder.relative_to(root).as_posix()}'"

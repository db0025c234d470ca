"""Rules of single values in params.yaml: each takes a value and returns it, or raises ValueError.

What pydantic's own constraints cannot say in a sentence that helps; fettle/params_schema.py says
which key has which rule.
"""

from __future__ import annotations

import re


def drawn(weight_percent: float) -> float:
    """Hold a weight to what the router can draw."""
    if round(weight_percent, 2) != weight_percent:
        raise ValueError("the router draws hundredths of a percent: at most two decimals")
    return weight_percent


def bento_name(value: str) -> str:
    """Hold a release's name to what BentoML takes as the name of a Bento."""
    if not re.fullmatch(r"[a-z]([a-z0-9_-]{0,61}[a-z0-9])?", value):
        raise ValueError(
            "BentoML takes 1 to 63 lower-case letters a-z, digits, - and _, a letter first, a "
            "letter or digit last"
        )
    return value


def list_or_auto(value: object) -> object:
    """Hold a recipe to `auto` or a list of steps."""
    if value != "auto" and not isinstance(value, list):
        raise ValueError("either auto, or a list of steps such as [{use: prune}, {use: distil}]")
    if isinstance(value, list) and not all(isinstance(step, dict) for step in value):
        raise ValueError("each step of a recipe is a mapping that begins with use: TECHNIQUE")
    return value


def class_names(labels: list[str]) -> list[str]:
    """Hold the names of classes to some, all different, none empty."""
    double = sorted({label for label in labels if labels.count(label) > 1})
    if double or not all(labels):
        raise ValueError(f"{double[0]!r} stands there twice" if double else "a name is empty")
    if not labels:
        raise ValueError("it names no class; null takes those of the data")
    return labels

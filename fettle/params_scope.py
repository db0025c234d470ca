"""Scope of params that a stage sees, and the values that an earlier stage decided for `auto`.

`decided` maps a dotted key to a value, {"preprocess.size_px": 128}: a fact of the stage that
decided, which its readers find laid over their params. `input_size_px` is the side of the images
that a compressed model takes, where it is smaller than the float model's: stages behind compress
find it as their preprocess.size_px.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import BaseModel, JsonValue

from fettle.errors import OurFault
from fettle.params_schema import Params

DECIDED = "decided"  # the facts' names
INPUT_SIZE_PX = "input_size_px"


class _Scope:
    """Show only the declared parts of a model: a read outside them is our mistake."""

    def __init__(self, model: BaseModel, allowed: Sequence[str], name: str) -> None:
        self._model, self._allowed, self._name = model, allowed, name

    def __getattr__(self, key: str) -> object:
        alias = "validate" if key == "validate_" else key
        value = getattr(self._model, key)
        if alias in self._allowed:
            return value
        below = [a.split(".", 1)[1] for a in self._allowed if a.startswith(f"{alias}.")]
        if below:
            return _Scope(value, below, f"{self._name}.{alias}")
        raise OurFault(
            f"a stage read {self._name}.{alias} without declaring it",
            rule="a stage sees the sections it lists in SECTIONS, which dvc.yaml lists too",
            fix="add it to the stage's SECTIONS and to its params in dvc.yaml",
        )


def scope(params: Params, sections: Sequence[str]) -> Params:
    """Narrow `params` to `sections` (dotted): what a stage does not declare it cannot read."""
    return cast(Params, _Scope(params, sections, "params"))


def decided_in(facts: object) -> Mapping[str, JsonValue]:
    """Return what a stage's facts, plain JSON, say of `auto`; nothing where they say nothing."""
    found = facts.get(DECIDED, {}) if isinstance(facts, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def settle(params: Params, decided: Mapping[str, JsonValue]) -> Params:
    """Lay decided values over the params that are `auto`; what a person wrote stands."""
    if not decided:
        return params
    if isinstance(params, _Scope):
        inner = settle(cast(Params, params._model), decided)
        return cast(Params, _Scope(inner, params._allowed, params._name))
    doc: JsonValue = params.model_dump(mode="json", by_alias=True)
    for key, value in decided.items():
        node = doc
        *parents, last = key.split(".")
        for part in parents:
            node = node[part] if isinstance(node, dict) else None
        if isinstance(node, dict) and node.get(last) == "auto":
            node[last] = value
    return type(params).model_validate_json(json.dumps(doc))


def follow(params: Params, facts: Sequence[object]) -> Params:
    """Lay over the params what upstream stages decided: the last side of images stands.

    Each of `facts` is plain JSON.
    """
    sides = []
    for each in facts:
        params = settle(params, decided_in(each))
        sides.append(each.get(INPUT_SIZE_PX) if isinstance(each, Mapping) else None)
    found = [side for side in sides if isinstance(side, int)]
    return at_side(params, found[-1]) if found else params


def at_side(params: Params, size_px: int) -> Params:
    """Return the params with images of another side, whatever a person wrote."""
    if isinstance(params, _Scope):
        inner = at_side(cast(Params, params._model), size_px)
        return cast(Params, _Scope(inner, params._allowed, params._name))
    section = params.preprocess.model_copy(update={"size_px": size_px})
    return params.model_copy(update={"preprocess": section})

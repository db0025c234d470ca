"""Licence check: whether the data's and the model's licences are in verdict.licences.allow.

Asked before a run, where nothing has been trained yet, and again by the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fettle import licences, local_settings, plugins
from fettle.errors import DataError, ModelError
from fettle.params import Params
from fettle.params_schema import Licences

NOT_STATED = "not stated"
# What a person does about a licence that nobody states: the part's own place for it.
REMEDY = {
    "data": "put a file LICENSE beside the data, or write it to verdict.licences.data",
    "model": "put a file LICENSE beside the weights, or write it to verdict.licences.model",
}
_WRONG = {"data": DataError, "model": ModelError}


def resolve(section: Licences, *, data: str | None, model: str | None) -> dict[str, str | None]:
    """Return the licence of each part: what the params state goes before what the plug-in does."""
    return {"data": section.data or data, "model": section.model or model}


def check(allow: Sequence[str] | None, found: Mapping[str, str | None]) -> list[tuple[bool, str]]:
    """Return, for each part, whether its licence is allowed, in a sentence; none without a list."""
    if allow is None:
        return []
    rule = f"in verdict.licences.allow ({', '.join(allow) or 'which is empty'})"
    return [
        (True, f"the {part}'s licence {licence} is {rule}")
        if licence is not None and licences.is_allowed(licence, allow)
        else (False, f"the {part}'s licence is {licence or NOT_STATED}, which is not {rule}")
        for part, licence in found.items()
    ]


def refuse(tree: Path, params: Params) -> None:
    """Refuse data or a model whose licence is not in the list. Raises DataError or ModelError.

    Asks the source and the family as ingest and finetune will, and runs nothing.
    """
    section = params.verdict.licences
    if section.allow is None:
        return
    source = plugins.resolve("sources", params.ingest.source, where="ingest.source")
    options = source.Params.model_validate(params.ingest.options, strict=False)
    family = plugins.resolve("families", params.finetune.family, where="finetune.family")
    wanted = family.Params.model_validate_json(json.dumps(params.finetune.options))
    found = resolve(
        section,
        data=licences.stated(source, options, local_settings.location(tree, options)),
        model=licences.stated(family, wanted, tree),
    )
    for (part, licence), (holds, _) in zip(found.items(), check(section.allow, found), strict=True):
        if not holds:
            raise _WRONG[part](
                f"the {part}'s licence is not in verdict.licences.allow",
                got=licence or NOT_STATED,
                rule=f"a release is made of {', '.join(section.allow) or 'nothing'} alone",
                fix=f"take other {'data' if part == 'data' else 'weights'}, or allow it"
                if licence
                else REMEDY[part],
            )

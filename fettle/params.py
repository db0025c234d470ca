"""Read params.yaml as frozen, strict models: every error at once, with its line, before any work.

Read with ruamel (YAML 1.2), as DVC does: PyYAML would read `3e-4` as a string. Validated as JSON,
because pydantic's strict Python mode refuses str → Enum where its strict JSON mode takes it. A
section that names a plug-in (`ingest.source`, `finetune.family`, `compress.recipe[].use`) carries
that plug-in's own `Params`, found by file name; those files import no torch at module level, so a
params error costs no heavy import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from fettle import params_migration, params_text, plugins
from fettle.errors import ParamsError
from fettle.params_migration import dotted as _dotted
from fettle.params_schema import Params, Strict
from fettle.params_scope import scope
from fettle.params_text import Where

__all__ = ["Params", "Strict", "check", "compose", "load", "scope"]

_KINDS = {type(None): "nothing", CommentedSeq: "a list"}
# What a key takes, where pydantic says it in the words of JSON.
_WANTED = {
    "model_type": "a section is wanted, with keys below it",
    "dict_type": "a section is wanted, with keys below it",
    "list_type": "a list is wanted, such as [a, b]",
}


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check `path` with `overrides` ("a.b.0.c=value") laid over it.

    Raises ParamsError with every problem found, one a line.
    """
    return check(compose(path, overrides), path)


def compose(path: Path, overrides: Sequence[str] = ()) -> CommentedMap:
    """Read `path` as YAML and lay the overrides over it; nothing is checked but their paths."""
    text = params_text.read(path)
    doc = params_text.parse(text, path.name, fix=f"mend that line of {path.name}")
    if not isinstance(doc, CommentedMap):
        raise ParamsError(
            f"{path.name} holds no mapping",
            got=_KINDS.get(type(doc), "text or a number"),
            rule="it holds the sections of a params file: seed, ingest, validate, …",
            fix="start from the params.yaml that `fettle init` makes",
        )
    for override in overrides:
        _override(doc, override)
    _expand_family(doc)
    return doc


def _expand_family(doc: CommentedMap) -> None:
    """Write the short form `family: torchvision:resnet18`, or module:function, out in full."""
    section = doc.get("finetune")
    family = section.get("family") if isinstance(section, CommentedMap) else None
    if isinstance(section, CommentedMap) and isinstance(family, str) and ":" in family:
        options = section.get("options")
        if options is None or isinstance(options, Mapping):
            section["family"] = "torch_module"
            section["options"] = CommentedMap({"entry": family, **(options or {})})


def _override(doc: CommentedMap, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ParamsError(
            f"--set '{override}' is not an assignment",
            rule="it reads path.to.key=value, with list positions as numbers",
            fix="for example --set compress.recipe.0.keep_fraction=0.5",
        )
    value = params_text.parse(text, f"--set '{override}'", fix=params_text.QUOTE, plain=True)
    params_migration.refuse_former_set(override, key, value)
    node: object = doc
    *parents, last = key.split(".")
    seen: list[str] = []
    for part in parents:
        node = _child(node, part, seen, override)
        seen.append(part)
    if isinstance(node, list):
        _child(node, last, seen, override)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        _child(node, last, seen, override)


def _child(node: object, part: str, seen: list[str], override: str) -> object:
    if isinstance(node, list) and part.isascii() and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    if isinstance(node, dict):
        if part not in node and part in _sections(seen):
            node[part] = CommentedMap()  # a section left to its defaults
        if part in node:
            return node[part]
    choices = [str(k) for k in node] if isinstance(node, dict) else []
    if isinstance(node, list):
        there = f"there is a list of {len(node)}"
    else:
        there = f"the keys there are {choices}" if choices else "nothing lies below it"
    raise ParamsError(
        f"--set '{override}': no '{part}' below '{'.'.join(seen) or 'the top'}'",
        got=f"'{part}'{plugins.suggest(part, choices)}",
        rule=there,
        fix="name an existing key, or edit the file",
    )


def _sections(where: Sequence[str]) -> list[str]:
    """List the keys at `where` that hold a section of their own."""
    return [name for name in _fields(Params, tuple(where)) if _fields(Params, (*where, name))]


def check(doc: CommentedMap, path: Path) -> Params:
    """Validate a document that was composed from `path`, which the error text names."""
    name = path.name
    unfit = params_text.unfit(doc)
    problems = [
        (params_text.line(doc, where), f"{_dotted(where)}: {text}") for where, text in unfit
    ]
    params: Params | None = None
    if not params_text.is_endless(unfit):
        outdated = params_migration.outdated(doc, path)
        problems += [(params_text.line(doc, where), text) for where, text in outdated]
        keys = [_dotted(where) for where, _ in (*unfit, *outdated)]
        forms = ("{}: ", "unknown key '{}'", "missing key '{}'")
        said = tuple(form.format(key) for key in keys for form in forms)
        params, found = _check_models(doc)
        problems += [one for one in found if not one[1].startswith(said)]
    if params is None or problems:
        lines = "\n".join(
            f"  {name}:{line}: {text}" if line else f"  {name}: {text}"
            for line, text in sorted(problems)
        )
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise ParamsError(
            f"{name} has {count}\n{lines}\nNothing was run",
            fix=f"mend {name} (or the --set) and run again",
        )
    return params


def _check_models(doc: CommentedMap) -> tuple[Params | None, list[tuple[int, str]]]:
    params: Params | None = None
    problems: list[tuple[int, str]] = []
    try:
        params = Params.model_validate_json(_json(doc))
    except ValidationError as err:
        problems += [_explain(doc, Params, e, ()) for e in err.errors()]
    return params, problems + _check_plugins(doc)


def _json(doc: object) -> str:
    """Write a tree as JSON; what JSON cannot hold is a problem of its own, see params_text."""
    return json.dumps(doc, default=str, skipkeys=True)


def _check_plugins(doc: CommentedMap) -> list[tuple[int, str]]:
    problems: list[tuple[int, str]] = []
    for folder, parent, key in (
        ("sources", ("ingest",), "source"),
        ("families", ("finetune",), "family"),
    ):
        section = _get(doc, parent)
        if isinstance(section, CommentedMap) and isinstance(section.get(key), str):
            options = section.get("options") or CommentedMap()
            problems += _check_plugin(
                doc, folder, section[key], (*parent, key), options, (*parent, "options")
            )
    recipe = _get(doc, ("compress", "recipe"))
    for index, step in enumerate(recipe if isinstance(recipe, list) else []):
        where = ("compress", "recipe", index)
        if not isinstance(step, Mapping) or not isinstance(step.get("use"), str):
            problems.append(
                (params_text.line(doc, where), f"compress.recipe[{index}] needs `use: TECHNIQUE`")
            )
            continue
        options = {k: v for k, v in step.items() if k != "use"}
        problems += _check_plugin(doc, "techniques", step["use"], (*where, "use"), options, where)
        problems += _check_serves(doc, step["use"], (*where, "use"))
    problems += _check_trains(doc, recipe)
    targets = _get(doc, ("targets",))
    for at, target in enumerate(targets if isinstance(targets, list) else []):
        problems += _check_name(doc, "targets", str(target), ("targets", at))
        if isinstance(targets, list) and target in targets[:at]:
            text = f"targets[{at}]: '{target}' is listed twice; take one out"
            problems.append((params_text.line(doc, ("targets", at)), text))
    own = _get(doc, ("evaluate", "drop_max_of_target"))
    for name in own if isinstance(own, Mapping) else ():
        if isinstance(targets, list) and name not in targets:
            at_own: Where = ("evaluate", "drop_max_of_target", str(name))
            text = f"{_dotted(at_own)}: '{name}' is not among targets: {list(targets)}"
            problems.append((params_text.line(doc, at_own), text))
    aim = _get(doc, ("compress", "objective", "target"))
    if isinstance(aim, str) and isinstance(targets, list) and aim not in targets:
        problems.append(
            (
                params_text.line(doc, ("compress", "objective", "target")),
                f"compress.objective.target: '{aim}' is not among targets: {list(targets)}",
            )
        )
    return problems


def _check_name(doc: CommentedMap, folder: str, name: str, where: Where) -> list[tuple[int, str]]:
    choices = plugins.names(folder)
    if name in choices:
        return []
    text = (
        f"{_dotted(where)}: unknown name '{name}'{plugins.suggest(name, choices)} "
        f"(files of {plugins.folder_of(folder)}: {', '.join(choices)})"
    )
    if folder == "techniques":
        text += "; int8 and other precisions are the targets' (params.yaml: targets), not a step's"
    return [(params_text.line(doc, where), text)]


def _check_plugin(
    doc: CommentedMap, folder: str, name: str, where: Where, options: object, options_at: Where
) -> list[tuple[int, str]]:
    bad_name = _check_name(doc, folder, name, where)
    if bad_name:
        return bad_name
    model: type[Strict] = plugins.resolve(folder, name, where=_dotted(where)).Params
    try:
        model.model_validate_json(_json(options))
    except ValidationError as err:
        return [_explain(doc, model, e, options_at) for e in err.errors()]
    return []


def _check_serves(doc: CommentedMap, name: str, where: Where) -> list[tuple[int, str]]:
    """Refuse a technique that cannot bring the objective nearer, or that acts on a finished graph,
    before training is spent on it.
    """
    goal = _get(doc, ("compress", "objective", "minimise"))
    if name not in plugins.names("techniques"):
        return []
    claims = plugins.resolve("techniques", name, where=_dotted(where)).CLAIMS
    if claims.serves is None or goal in claims.serves:
        return []
    text = (
        f"{_dotted(where)}: '{name}' does not bring {goal} down: {claims.reason}. Take it out, or "
        f"minimise {' or '.join(claims.serves)}"
    )
    return [(params_text.line(doc, where), text)]


def _check_trains(doc: CommentedMap, recipe: object) -> list[tuple[int, str]]:
    """Refuse a recipe for a family that has no module to act on."""
    family = _get(doc, ("finetune", "family"))
    if not isinstance(recipe, list) or not recipe or family not in plugins.names("families"):
        return []
    if plugins.resolve("families", family, where="finetune.family").TRAINS:
        return []
    names = ", ".join(str(step.get("use")) for step in recipe if isinstance(step, Mapping))
    text = (
        "compress.recipe: an ONNX file cannot be pruned or trained here: got compress.recipe with "
        f"{names}; family '{family}' has no module to act on: recipe must be []. Set "
        "compress.recipe to []; int8 targets are still quantized"
    )
    return [(params_text.line(doc, ("compress", "recipe")), text)]


def _explain(
    doc: CommentedMap, model: type[BaseModel], error: ErrorDetails, prefix: Where
) -> tuple[int, str]:
    """Turn one pydantic error into (line, text) with the value got and the nearest name."""
    loc: Where = tuple(error["loc"])
    where = prefix + loc
    line = params_text.line(doc, where)
    if error["type"] == "extra_forbidden":
        siblings = _fields(model, loc[:-1])
        key = str(loc[-1])
        return line, (
            f"unknown key '{_dotted(where)}' (value {_show(error['input'])})"
            f"{plugins.suggest(key, siblings)}"
            f"{'' if plugins.suggest(key, siblings) else f'; the keys are {siblings}'}"
        )
    if error["type"] == "missing":
        return line, f"missing key '{_dotted(where)}'"
    message = _WANTED.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
    if error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        message += "; put it in quotes"
    if error["type"] == "bool_type" and error["input"] in ("yes", "no", "on", "off"):
        message += "; YAML 1.2 writes true or false"
    return line, f"{_dotted(where)}: {message} (value {_show(error['input'])})"


def _show(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(model: type[BaseModel], loc: Where) -> list[str]:
    """List the keys allowed at `loc` below `model`."""
    current: object = model
    for part in loc:
        if isinstance(part, int):
            current = next(iter(get_args(current)), None)
        elif isinstance(current, type) and issubclass(current, BaseModel):
            named = {f.alias or n: f.annotation for n, f in current.model_fields.items()}
            current = named.get(part)
        if get_origin(current) is UnionType:
            current = next(a for a in get_args(current) if a is not type(None))
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [f.alias or n for n, f in current.model_fields.items()]
    return []


def _get(doc: object, where: Where) -> object:
    for part in where:
        if not isinstance(doc, Mapping) or part not in doc:
            return None
        doc = doc[part]
    return doc

"""`fettle catalog`: the plug-ins that params.yaml can name, with what each does and its options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fettle.cli.run import JsonOption

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaValue

# kind → where params.yaml names it
KINDS = {
    "sources": "ingest.source",
    "checks": "validate, all of them",
    "families": "finetune.family",
    "techniques": "compress.recipe[].use",
    "targets": "targets",
    "runtimes": "by its target",
}


def catalog(
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(KINDS)}; all if left out.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List the sources, checks, model families, techniques and targets with their options.

    Example: fettle catalog sources
    """
    from fettle import plugins
    from fettle.errors import UserError

    if kind is not None and kind not in KINDS:
        raise UserError(
            f"there is no kind '{kind}'{plugins.suggest(kind, list(KINDS))}",
            rule=f"the kinds are {', '.join(KINDS)}",
            fix="see `fettle catalog`",
        )
    rows = [row for one in ([kind] if kind else KINDS) for row in entries(one)]
    if json_:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['params_key']}: {row['name']}\n    {row['about']}")
        for name, text in row["options"].items():
            print(f"      {name}: {text}")


class CatalogRow(TypedDict):
    """One plug-in, as `fettle catalog --json` prints it."""

    kind: str
    name: str
    about: str
    params_key: str
    options: dict[str, str]  # {name: type and default}


def entries(kind: str) -> list[CatalogRow]:
    """Return a row a plug-in: {kind, name, about, params_key, options: {name: type and value}}."""
    from fettle import plugins

    key = KINDS[kind]
    rows: list[CatalogRow] = []
    for name in plugins.names(kind):
        found = plugins.resolve(kind, name, where=key)
        rows.append(
            {
                "kind": kind,
                "name": name,
                "about": plugins.summary(kind, name),
                "params_key": key,
                "options": options(found.Params) if hasattr(found, "Params") else {},
            }
        )
    return rows


def options(model: type[BaseModel]) -> dict[str, str]:
    """Write every option of a plug-in's Params as "type = default"."""
    schema = model.model_json_schema()
    required = set(schema.get("required", ()))
    return {
        name: _kind(field)
        + (", needed" if name in required else f" = {json.dumps(field.get('default'))}")
        for name, field in schema.get("properties", {}).items()
    }


def _kind(field: JsonSchemaValue) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"])
    if "enum" in field or "const" in field:
        return " or ".join(json.dumps(one) for one in field.get("enum", [field.get("const")]))
    return str(field.get("type", "value"))

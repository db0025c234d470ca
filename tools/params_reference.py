"""Write docs/params.md, the reference of params.yaml, from its models: `make params`.

Type, limits and default are the models' (fettle/params_schema.py); the value and the words beside
it are those of the two files that a project starts from; a section's text is its class's docstring.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.json_schema import JsonSchemaValue
from ruamel.yaml import YAML

from fettle.cli import catalog
from fettle.params_schema import Params

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "params.md"
STARTS = {"digits": ROOT / "params.yaml", "photos": ROOT / "examples" / "photos.yaml"}
HEAD = """# Parameters

Every key of params.yaml, in its order. Made by `make params` from the models that check the file:
edit these. *digits* is the value in params.yaml of this repository, *photos* the one that
`fettle init --data` begins with; "-" is a key that the file leaves to its default.
`fettle run --set KEY=VALUE` sets a key for one run; a key that is not here is refused, with the
nearest one that is.
"""
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "≥ {} characters",
    "minItems": "≥ {} of them",
}
UNSAID = 2**31  # a limit of numpy's and ONNX's, which nobody meets


def generate() -> str:
    """Return the text of docs/params.md."""
    schema = Params.model_json_schema()
    starts = {name: dict(lines(path)) for name, path in STARTS.items()}
    parts = [HEAD, *_section(schema, schema["$defs"], starts, ()), *_plugins()]
    return "\n".join(parts)


def lines(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield {key: (value, comment)} of a params file, as its lines say it."""
    above: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        found = re.fullmatch(r"( *)([a-z_0-9]+):(?: +(.*?))??(?:\s+#\s(.*))?", line)
        if found is None:
            continue
        indent = len(found[1])
        above = [(at, name) for at, name in above if at < indent]
        key = ".".join([*(name for _, name in above), found[2]])
        value, said = found[3] or "", found[4] or ""
        yield key, (value, said)
        above.append((indent, found[2]))
        if value.startswith("{"):  # a section written in one line
            inside = YAML(typ="safe", pure=True).load(value)
            yield from ((f"{key}.{name}", (json.dumps(one), "")) for name, one in inside.items())


def _section(
    schema: JsonSchemaValue,
    known: dict[str, JsonSchemaValue],
    starts: dict[str, dict[str, tuple[str, str]]],
    where: tuple[str, ...],
) -> Iterator[str]:
    """Write the keys of a model as a table, then each section below it."""
    sections = {n: m for n, f in schema["properties"].items() if (m := _model(f, known))}
    plain = {n: f for n, f in schema["properties"].items() if n not in sections}
    if where:
        yield f"## {'.'.join(where)}\n"
        if about := schema.get("description", ""):
            yield f"{_prose(about)}\n"
    if plain:
        yield "| key | takes | default | digits | photos | |\n|---|---|---|---|---|---|"
        for name, kind in plain.items():
            key = ".".join((*where, name))
            default = f"`{json.dumps(kind['default'])}`" if "default" in kind else "needed"
            values = [starts[start].get(key, ("", "")) for start in STARTS]
            shown = [f"`{value}`" if value else "-" for value, _ in values]
            said = next((comment for _, comment in reversed(values) if comment), "")
            cells = (f"`{key}`", _takes(kind, known), default, *shown, said)
            yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
        yield ""
    for name, below in sections.items():
        yield from _section(below, known, starts, (*where, name))


def _model(kind: JsonSchemaValue, known: dict[str, JsonSchemaValue]) -> JsonSchemaValue | None:
    """Return the model that a key holds, if it holds one."""
    for one in (kind, *kind.get("allOf", ())):
        if "$ref" in one:
            found = known[one["$ref"].rpartition("/")[2]]
            return found if "properties" in found else None
    return None


def _takes(kind: JsonSchemaValue, known: dict[str, JsonSchemaValue]) -> str:
    """Say what a key takes: its type and its limits."""
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        keys = ", ".join(known[name].get("properties", {}))
        return f"{{{keys}}}" if keys else _takes(known[name], known)
    if "anyOf" in kind:
        return " or ".join(_takes(one, known) for one in kind["anyOf"])
    if "enum" in kind or "const" in kind:
        return " or ".join(f"`{one}`" for one in kind.get("enum", [kind.get("const")]))
    words = {"integer": "whole number", "string": "text", "boolean": "`true` or `false`"}
    text = words.get(kind.get("type", ""), kind.get("type", "anything"))
    if text == "array":
        text = f"list of {_takes(kind.get('items', {}), known)}"
    limits = [form.format(kind[k]) for k, form in LIMITS.items() if k in kind and kind[k] < UNSAID]
    return ", ".join([text.replace("object", "section").replace("null", "`null`"), *limits])


def _plugins() -> Iterator[str]:
    for kind in ("sources", "families", "techniques"):
        key = catalog.KINDS[kind]
        yield f"## Options of {kind} (`{key}`)\n"
        for row in catalog.entries(kind):
            yield f"- `{row['name']}`: {row['about']}"
            yield from (f"  - `{name}`: {text}" for name, text in row["options"].items())
        yield ""


def _prose(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(generate())
    sys.stdout.write(f"wrote {FILE}\n")

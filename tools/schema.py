"""Write fettle/report/schema.json from the types of the report's document: `make schema`.

A key's description is the text below it in its class; unit and range are its type's
(fettle/facts/quantities.py). A key without a text is refused.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from fettle.report.report_document import SCHEMA, ReportDocument

FILE = Path(__file__).resolve().parent.parent / "fettle" / "report" / "schema.json"


class _Published(GenerateJsonSchema):
    """JSON Schema of what is printed, without titles, which would only repeat the names."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002  pydantic's name
        return False

    def field_is_required(self, field: dict[str, object], total: bool) -> bool:
        """Say so of every key of a dataclass, and of a file's that its stage may not leave out."""
        return field["type"] == "dataclass-field" or super().field_is_required(field, total)


def generate(document: type = ReportDocument) -> str:
    """Return the schema's text."""
    made = TypeAdapter(document).json_schema(mode="serialization", schema_generator=_Published)
    definitions = made.pop("$defs", {})
    documented = {one.__name__: one for one in classes(document)}
    for name, definition in {document.__name__: made, **definitions}.items():
        if name in documented:
            describe(definition, documented[name])
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": SCHEMA}
    head["description"] = made.pop("description")
    return json.dumps({**head, **made, "$defs": definitions}, indent=2) + "\n"


def classes(hint: object) -> Iterator[type]:
    """Walk the classes that a type is made of."""
    for part in get_args(hint):
        yield from classes(part)
    if not isinstance(hint, type) or not hint.__module__.startswith("fettle."):
        return
    if dataclasses.is_dataclass(hint) or issubclass(hint, BaseModel):
        yield hint
        for inner in get_type_hints(hint).values():
            yield from classes(inner)


def describe(definition: JsonSchemaValue, documented: type) -> None:
    """Add the texts of a class and of its keys."""
    definition.pop("title", None)
    definition["description"] = _line(documented.__doc__ or "")
    if definition.get("additionalProperties") is False:
        del definition["additionalProperties"]  # keys are added within a version
    found: dict[str, str] = {}
    for base in reversed(documented.__mro__):
        found |= _texts(base) if base.__module__.startswith("fettle.") else {}
    properties = definition["properties"]
    for key, schema in properties.items():
        text = found.get(key) or found.get(f"{key}_")  # float_ is "float"
        if text is None:
            raise SystemExit(f"{documented.__name__}.{key} has no text below it: say what it is")
        schema.pop("default", None)  # a key that is left out has no value
        properties[key] = {"description": text, **schema}


def _texts(documented: type) -> dict[str, str]:
    """Return {field: the text below it}."""
    body = ast.parse(textwrap.dedent(inspect.getsource(documented))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                found[name] = _line(said)
    return found


def _line(text: str) -> str:
    return " ".join(text.split())


def main() -> int:
    """Write the file."""
    FILE.write_text(generate())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Typed JSON documents: written through a frozen model, and read through it or refused by name.

A key that was not given is not written, so that an optional part is absent rather than null, and
what is read is written again to equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Generic, Self, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    RootModel,
    ValidationError,
    WithJsonSchema,
)

from fettle import manifest
from fettle.errors import ProjectError
from fettle.measure import Measure, MeasureDict

Row = TypeVar("Row")
Options: TypeAlias = Mapping[str, JsonValue]  # a plug-in's own: its Params checks them
PROBLEMS_SHOWN = 3


def _measure(given: Measure | MeasureDict) -> Measure:
    try:
        return given if isinstance(given, Measure) else Measure.from_dict(given)
    except TypeError as err:
        raise ValueError(f"no Measure: {err}") from err


def _measure_dict(measure: Measure) -> dict[str, object]:
    return dict(measure.to_dict())


# A whole number stays whole, as a Measure in a manifest does: pydantic would make 12 of it 12.0.
Measured = Annotated[
    Measure,
    PlainValidator(_measure),
    PlainSerializer(_measure_dict),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["value", "unit", "n", "low", "high"],
            "properties": {
                "value": {"type": "number"},
                "unit": {"type": "string"},
                "n": {"type": "integer"},
                "low": {"type": ["number", "null"]},
                "high": {"type": ["number", "null"]},
            },
        }
    ),
]


class JsonFile(BaseModel):
    """A model that is a JSON file, or a part of one."""

    model_config = ConfigDict(
        frozen=True, strict=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )

    def to_json(self) -> JsonValue:
        """Return the plain JSON: the keys that were given."""
        value: JsonValue = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return value

    def write(self, path: Path) -> None:
        """Write the file atomically, sorted, without NaN."""
        manifest.write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises ProjectError when it is not there or does not fit the model.
        """
        if not path.is_file():
            raise ProjectError(f"{path} is not there", rule="its stage writes it", fix=_again(path))
        return cls._parse(path.read_bytes(), path)

    @classmethod
    def from_json(cls, doc: object, path: Path, *, key: str = "") -> Self:
        """Read what stands under `key` of the file `path`.

        Raises ProjectError when it does not fit the model.
        """
        return cls._parse(json.dumps(doc).encode(), path, key)

    @classmethod
    def _parse(cls, text: bytes, path: Path, key: str = "") -> Self:
        try:
            return cls.model_validate_json(text)
        except ValidationError as err:
            problems = [
                _problem((*([key] if key else []), *one["loc"]), one["msg"], one["type"])
                for one in err.errors()
            ]
            shown, more = problems[:PROBLEMS_SHOWN], len(problems) - PROBLEMS_SHOWN
            raise ProjectError(
                f"{path} is not as this fettle writes it",
                got="; ".join([*shown, *([f"{more} more"] if more > 0 else [])]),
                rule=f"it has the keys of {cls.__name__} ({cls.__module__.replace('.', '/')}.py); "
                "another version of fettle may have written it",
                fix=_again(path),
            ) from err


class TypedDocument(JsonFile):
    """A JSON object whose keys are this model's fields, no others."""

    model_config = ConfigDict(extra="forbid")

    def to_object(self) -> dict[str, JsonValue]:
        """Return the JSON object, to be part of another."""
        whole: dict[str, JsonValue] = self.model_dump(
            mode="json", by_alias=True, exclude_unset=True
        )
        return whole


class TypedRows(JsonFile, RootModel[tuple[Row, ...]], Generic[Row]):
    """A JSON list of like rows."""


def _problem(place: tuple[int | str, ...], text: str, kind: str) -> str:
    key = ".".join(map(str, place)) or "the whole"
    said = {"missing": "missing", "extra_forbidden": "unknown key"}.get(kind)
    return f"{key}: {said or text}"


def _again(path: Path) -> str:
    """Say how the file is made again: what is below artifacts/ is a stage's."""
    parts = path.parts
    folder = path.parent if "artifacts" in parts else path
    return f"delete {folder} and run `fettle run`, which makes it again"

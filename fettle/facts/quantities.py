"""Quantities: numbers of a typed document that say their unit and their range in its JSON schema.

The range is a promise to readers, held by tests and not at run time: a share that rounding carries
past 1 must not end a run. Whole numbers stay whole, where pydantic would make 12 of a float 12.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Quantity:
    """Unit ("1" for a share or a mark) and range, both ends included; None is unbounded."""

    unit: str
    low: float | None = None
    high: float | None = None

    def __get_pydantic_core_schema__(
        self, source: type[int | float], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Take an int where the type is int, else either."""
        if source is int:
            return handler(source)
        return core_schema.union_schema([core_schema.int_schema(), core_schema.float_schema()])

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Say type, unit and range."""
        described: JsonSchemaValue = {
            "type": "integer" if core["type"] == "int" else "number",
            "unit": self.unit,
        }
        if self.low is not None:
            described["minimum"] = self.low
        if self.high is not None:
            described["maximum"] = self.high
        return described


Share = Annotated[float, Quantity("1", low=0, high=1)]
ShareChange = Annotated[float, Quantity("1", low=-1, high=1)]
Cosine = Annotated[float, Quantity("1", low=-1, high=1)]
Correlation = Annotated[float, Quantity("1", low=-1, high=1)]
Logit = Annotated[float, Quantity("logit", low=0)]  # a difference of two
Times = Annotated[float, Quantity("x", low=0)]  # one figure over another
Milliseconds = Annotated[float, Quantity("ms", low=0)]
Seconds = Annotated[float, Quantity("s", low=0)]
SizeBytes = Annotated[int, Quantity("byte", low=0)]
Images = Annotated[int, Quantity("image", low=0)]
Epochs = Annotated[float, Quantity("epoch", low=0)]
Parameters = Annotated[float, Quantity("parameter", low=0)]
MultiplyAdds = Annotated[float, Quantity("multiply-add", low=0)]  # for one image
Count = Annotated[int, Quantity("1", low=0)]  # of what the key names

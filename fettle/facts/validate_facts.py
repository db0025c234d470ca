"""Validate facts: what the data checks found; and validation.json, the same in full."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from fettle.facts.typed_document import TypedDocument


class CheckSummary(TypedDocument):
    """One check: its rule as a sentence, what was observed in words, what follows a failure."""

    name: str
    passed: bool
    observed: str
    rule: str
    failing: str


class ValidateFacts(TypedDocument):
    """Facts of `stages/validate.py`; counts are images.

    `by_rule` is {rule: images set aside}; `classes` {label: {train, validation, test}} of those
    that go on. `decided` is what became of `auto` in the params, for those that read validate.
    """

    passed: bool
    rows: int
    quarantined: int
    by_rule: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    checks: tuple[CheckSummary, ...]
    decided: Mapping[str, JsonValue] = {}


class CheckReport(CheckSummary):
    """One check in full: Great Expectations' name and arguments, how many break it, examples."""

    table: str
    expectation: str
    arguments: Mapping[str, object]  # plain JSON
    elements: int
    broken: int
    examples: tuple[str, ...]
    fix: str


class CheckedLimits(TypedDocument):
    """The limits of params.yaml, section validate, that the checks held."""

    labels: tuple[str, ...] | None
    class_images_min: int
    class_imbalance_max: float | None
    size_px_min: int
    size_px_max: int
    null_max_fraction: float


class ValidationDocument(TypedDocument):
    """validation.json; `overview` is {column: {value: images}}."""

    passed: bool
    rows: int
    kept: int
    quarantined: int
    by_rule: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    overview: Mapping[str, Mapping[str, int]]
    limits: CheckedLimits
    great_expectations: str  # its version
    checks: tuple[CheckReport, ...]

    def summary(self) -> ValidateFacts:
        """Return what the manifest says of it."""
        return ValidateFacts(
            passed=self.passed,
            rows=self.rows,
            quarantined=self.quarantined,
            by_rule=self.by_rule,
            classes=self.classes,
            checks=tuple(
                CheckSummary(
                    name=check.name,
                    passed=check.passed,
                    observed=check.observed,
                    rule=check.rule,
                    failing=check.failing,
                )
                for check in self.checks
            ),
        )

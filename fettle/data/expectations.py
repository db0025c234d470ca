"""Run rules as Great Expectations does: the only module that knows it.

Its import costs 3.8 s, more than the checks, so it happens inside `run`. Its analytics are
switched off before that; the context is ephemeral, so that nothing is written but what is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict

from fettle.data.checks import Failing, Rule
from fettle.errors import OurFault

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import EphemeralDataContext

ANALYTICS = {"GX_ANALYTICS_ENABLED": "false"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # stands for every clock time: artefacts hold none
CLOCKS = re.compile(r"\d{8}T\d{6}\.\d+Z")
IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """What one rule found.

    `observed` is a value in words. `elements` counts what was looked at, `bad` holds the keys
    (row ids or class names) that broke the rule; a rule on the whole table has none.
    """

    rule: Rule
    passed: bool
    observed: str
    elements: int
    bad: tuple[str, ...]


class Validator:
    """One ephemeral context, made at the first use; `docs` keeps its pages there if given."""

    def __init__(self, docs: Path | None = None) -> None:
        self._docs = docs
        self._context: EphemeralDataContext | None = None

    def run(
        self, frame: pd.DataFrame, rules: Sequence[Rule], *, name: str, key: str
    ) -> list[ExpectationResult]:
        """Check `frame`, whose column `key` names its rows; outcomes are in the order of `rules`.

        Raises OurFault when an expectation could not be computed.
        """
        os.environ.update(ANALYTICS)
        import great_expectations as gx
        from great_expectations import expectations
        from great_expectations.core.run_identifier import RunIdentifier

        context = self._open(gx)
        suite = gx.ExpectationSuite(name=name)
        for rule in rules:
            make = getattr(expectations, rule.expectation)
            severity = "warning" if rule.failing is Failing.WARN else "critical"
            suite.add_expectation(
                make(**rule.arguments, severity=severity, meta={"rule": rule.name})
            )
        asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(
                name=name,
                data=asset.add_batch_definition_whole_dataframe("all"),
                suite=context.suites.add(suite),
            )
        )
        result = definition.run(
            batch_parameters={"dataframe": frame},
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": [key],
            },
            run_id=RunIdentifier(run_name=name, run_time=EPOCH),
        ).to_json_dict()
        found = {one["expectation_config"]["meta"]["rule"]: one for one in result["results"]}
        return [_outcome(rule, found[rule.name], key) for rule in rules]

    def write_docs(self) -> None:
        """Build Great Expectations' own pages (Data Docs), if they were asked for.

        Clock times and random ids are taken out, so that the same data gives the same bytes.
        """
        if self._docs is None or self._context is None:
            return
        self._context.build_data_docs(site_names=["docs"])
        for page in sorted(self._docs.rglob("*.html")):
            text = CLOCKS.sub("19700101T000000.000000Z", page.read_text())
            page.write_text(IDS.sub(_renumber(), text))

    def _open(self, gx: ModuleType) -> EphemeralDataContext:
        if self._context is None:
            from great_expectations.data_context.types.base import ProgressBarsConfig

            self._context = gx.get_context(mode="ephemeral")
            self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
            if self._docs is not None:
                self._context.add_data_docs_site(site_name="docs", site_config=_site(self._docs))
        return self._context


def _site(folder: Path) -> dict[str, object]:
    return {
        "class_name": "SiteBuilder",
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(folder.resolve()),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _renumber() -> Callable[[re.Match[str]], str]:
    """Return a replacement that gives equal ids of one page equal numbers, by first sight."""
    seen: dict[str, str] = {}
    return lambda match: seen.setdefault(match[0], f"{len(seen):032x}")


class _GxCounts(TypedDict, total=False):
    element_count: int
    unexpected_count: int
    unexpected_index_list: list[dict[str, str]] | None
    observed_value: object  # a number, a list or a text, by the expectation


class _GxOutcome(TypedDict):
    """What Great Expectations says of one expectation, in JSON."""

    success: bool
    result: _GxCounts
    exception_info: Mapping[str, object]  # of the expectation, or one for each of its metrics


def _outcome(rule: Rule, one: _GxOutcome, key: str) -> ExpectationResult:
    raised = one["exception_info"]
    if raised.get("raised_exception") or "raised_exception" not in raised:
        texts = [raised, *(v for v in raised.values() if isinstance(v, Mapping))]
        words = [str(t["exception_message"]) for t in texts if t.get("exception_message")]
        raise OurFault(
            f"the check '{rule.name}' could not be computed", got=(words or ["no message"])[0]
        )
    result = one["result"]
    bad = tuple(str(entry[key]) for entry in result.get("unexpected_index_list") or [])
    elements = int(result.get("element_count", 0))
    if "unexpected_count" in result:
        observed = f"{result['unexpected_count']:,} of {elements:,} break it"
    else:
        observed = _words(result["observed_value"])
    return ExpectationResult(rule, bool(one["success"]), observed, elements, bad)


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)

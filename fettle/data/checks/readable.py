"""Files that cannot be decoded: empty, cut short, damaged, too large, or no image at all."""

from __future__ import annotations

from fettle.data.checks import CheckLimits, Failing, Rule


def rules(limits: CheckLimits) -> list[Rule]:
    """Set aside what ingest could not decode; its own words are the reason."""
    del limits
    return [
        Rule(
            name="unreadable",
            says="every file is an image that can be decoded",
            expectation="ExpectColumnValuesToBeNull",
            arguments={"column": "error"},
            failing=Failing.QUARANTINE,
            reason="{error}",
        )
    ]

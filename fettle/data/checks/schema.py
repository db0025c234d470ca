"""The table itself: its columns, unique row ids, known splits, true digests.

A table that ingest wrote holds them all; one that was written by hand may not.
"""

from __future__ import annotations

from fettle.data.checks import CheckLimits, Failing, Rule
from fettle.data.image_table import SCHEMA, SPLITS

FIX = "delete artifacts/ingest and run `fettle run`"


def rules(limits: CheckLimits) -> list[Rule]:
    """State the columns and what ids, splits and digests look like."""
    del limits
    columns = [name for name in SCHEMA.names if name != "bytes"]
    return [
        Rule(
            name="columns",
            says=f"the table has the columns {', '.join(columns)}",
            expectation="ExpectTableColumnsToMatchSet",
            arguments={"column_set": columns, "exact_match": False},
            failing=Failing.REFUSE,
            fix=FIX,
        ),
        Rule(
            name="row_unique",
            says="every row has an id of its own",
            expectation="ExpectColumnValuesToBeUnique",
            arguments={"column": "row"},
            failing=Failing.REFUSE,
            reason="the id is used more than once",
            fix=FIX,
        ),
        Rule(
            name="split_known",
            says=f"every row is in {', '.join(SPLITS)}",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "split", "value_set": list(SPLITS)},
            failing=Failing.REFUSE,
            reason="unknown split '{split}'",
            fix=FIX,
        ),
        Rule(
            name="digest_form",
            says="every content digest is a SHA-256",
            expectation="ExpectColumnValuesToMatchRegex",
            arguments={"column": "sha256", "regex": r"^[0-9a-f]{64}\Z"},
            failing=Failing.REFUSE,
            reason="no SHA-256: '{sha256}'",
            fix=FIX,
        ),
    ]

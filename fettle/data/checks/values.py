"""Value ranges: brightness within its scale, and something to see."""

from __future__ import annotations

from fettle.data.checks import CheckLimits, Failing, Rule


def rules(limits: CheckLimits) -> list[Rule]:
    """Set aside images of one brightness, and samples beyond their scale."""
    del limits
    return [
        Rule(
            name="constant",
            says="no image is of one brightness all over",
            expectation="ExpectColumnPairValuesAToBeGreaterThanB",
            arguments={
                "column_A": "high",
                "column_B": "low",
                "ignore_row_if": "either_value_is_missing",
            },
            failing=Failing.QUARANTINE,
            reason="every pixel has the same brightness ({low:.0%} of full scale)",
        ),
        *(
            Rule(
                name=name,
                says=f"the {name} pixel is within 0 and 100 % of full scale",
                expectation="ExpectColumnValuesToBeBetween",
                arguments={"column": column, "min_value": 0.0, "max_value": 1.0},
                failing=Failing.QUARANTINE,
                reason=f"the {name} pixel is at {{{column}:.0%}} of full scale",
            )
            for name, column in (("darkest", "low"), ("brightest", "high"))
        ),
    ]

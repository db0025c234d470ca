"""The label set: at least two classes, names without stray spaces, and those asked for."""

from __future__ import annotations

from fettle.data.checks import CheckLimits, Failing, Rule


def rules(limits: CheckLimits) -> list[Rule]:
    """State what a label looks like and which there are."""
    found = [
        Rule(
            name="label_count",
            says="there are at least two classes",
            expectation="ExpectColumnUniqueValueCountToBeBetween",
            arguments={"column": "label", "min_value": 2},
            failing=Failing.REFUSE,
            fix="add images of another class",
        ),
        Rule(
            name="label_text",
            says="no label begins or ends with a space or holds a control character",
            expectation="ExpectColumnValuesToMatchRegex",
            # 'cat ' beside 'cat' would silently be a class of its own
            arguments={
                "column": "label",
                "regex": r"^[^\s\x00-\x1f](?:[^\x00-\x1f]*[^\s\x00-\x1f])?\Z",
            },
            failing=Failing.QUARANTINE,
            reason="stray space or control character in the label {label!r}",
        ),
    ]
    if limits.labels is not None:
        found.append(
            Rule(
                name="label_known",
                says=f"every label is one of {', '.join(limits.labels)}",
                expectation="ExpectColumnValuesToBeInSet",
                arguments={"column": "label", "value_set": list(limits.labels)},
                failing=Failing.QUARANTINE,
                reason="the label '{label}' is not in validate.labels",
            )
        )
    return found

"""Channels and sample types: what preprocessing converts without guessing.

Grey, RGB and palettes are used as they are, transparent ones laid on white; so are 16-bit grey
(divided by 256) and CMYK and YCbCr (by Pillow's own formulas, without a colour profile: hues may
be off, shapes are not). Set aside are 32-bit integer and floating-point samples, whose full scale
nothing states, and LAB, which does not convert to grey.
"""

from __future__ import annotations

from fettle.data.checks import CheckLimits, Failing, Rule

CONVERTIBLE = (
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"),
    *("I;16", "I;16B", "I;16L", "I;16N"),
)


def rules(limits: CheckLimits) -> list[Rule]:
    """State the modes that go on."""
    del limits
    return [
        Rule(
            name="mode",
            says=f"the pixels convert to grey and RGB: mode {', '.join(CONVERTIBLE)}",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "mode", "value_set": list(CONVERTIBLE)},
            failing=Failing.QUARANTINE,
            reason="pixels of mode {mode} have no stated scale or no conversion to grey",
        )
    ]

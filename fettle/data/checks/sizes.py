"""The sides of the images, in pixels."""

from __future__ import annotations

from fettle.data.checks import CheckLimits, Failing, Rule


def rules(limits: CheckLimits) -> list[Rule]:
    """Bound width and height."""
    least, most = limits.size_px_min, limits.size_px_max
    return [
        Rule(
            name=side,
            says=f"the {side} is {least} to {most} px (validate.size_px_min, size_px_max)",
            expectation="ExpectColumnValuesToBeBetween",
            arguments={"column": side, "min_value": least, "max_value": most},
            failing=Failing.QUARANTINE,
            reason=f"{{width:.0f}} x {{height:.0f}} px: the {side} is outside {least} to {most}",
        )
        for side in ("width", "height")
    ]

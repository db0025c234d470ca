"""Recipe warnings, in words: a step that bought nothing or broke the model."""

from __future__ import annotations

from fettle.compress.technique import Capabilities
from fettle.measure import Measure


def step_warnings(
    claims: Capabilities,
    *,
    before: tuple[int, int],
    after: tuple[int, int],
    accuracy_before: Measure,
    accuracy_after: Measure,
    chance: float,
) -> tuple[str, ...]:
    """Compare a technique's claims with what it did.

    `before` and `after` are (parameters, multiply-accumulates); accuracies are of validation,
    with intervals; `chance` is the accuracy of always answering the commonest class.
    """
    warnings = []
    if claims.shrinks_parameters and after[0] >= before[0]:
        warnings.append(f"it removed no parameter: {before[0]:,} before and {after[0]:,} after")
    if claims.shrinks_macs and after[1] >= before[1]:
        warnings.append(
            f"it saved no multiply-accumulate: {before[1]:,} before, {after[1]:,} after"
        )
    shrinks = claims.shrinks_parameters or claims.shrinks_macs
    if not shrinks and accuracy_after.value <= accuracy_before.value:
        warnings.append(
            f"it gained nothing: validation accuracy {accuracy_before.value:.4f} before and "
            f"{accuracy_after.value:.4f} after"
        )
    low = accuracy_after.value if accuracy_after.low is None else accuracy_after.low
    if low <= chance:
        warnings.append(
            f"accuracy collapsed: {accuracy_after.value:.4f} on {accuracy_after.n} validation "
            f"images cannot be told from always answering the commonest class ({chance:.4f})"
        )
    return tuple(warnings)

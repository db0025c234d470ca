"""Labels that only look alike, in the ingest stage."""

from __future__ import annotations

import pytest

from stages import ingest


@pytest.mark.parametrize(
    ("labels", "alike"),
    [
        ({"cat", "dog"}, []),
        ({"Cat", "cat", "dog"}, [["'Cat'", "'cat'"]]),
        ({"STRASSE", "straße", None}, [["'STRASSE'", "'straße'"]]),
        ({"A", "a", "B", "b"}, [["'A'", "'a'"], ["'B'", "'b'"]]),
    ],
)
def test_classes_that_differ_in_case_only_are_found(
    labels: set[str | None], alike: list[list[str]]
) -> None:
    assert ingest.labels_alike(labels) == alike

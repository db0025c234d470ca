"""A file that a stage may not use is the user's to open, not our fault."""

from __future__ import annotations

import errno

from stages.__main__ import explain


def test_a_file_that_may_not_be_read_is_named_with_the_way_out() -> None:
    failure = explain(PermissionError(errno.EACCES, "Permission denied", "/data/photos/1.png"))
    assert failure.kind == "user"
    assert str(failure) == (
        "/data/photos/1.png cannot be used: got PermissionError: Permission denied; a stage reads "
        "its inputs and writes its artefact as the user who runs it. Fix: make it readable and "
        "writable for this user, and run again."
    )


def test_a_refusal_without_a_file_stays_ours_to_look_into() -> None:
    assert explain(PermissionError(errno.EPERM, "Operation not permitted")).kind == "ours"

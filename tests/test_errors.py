from __future__ import annotations

import pytest

from fettle import errors


def test_an_error_is_one_paragraph_with_value_rule_and_next_step() -> None:
    err = errors.DataError(
        "class 'cat' is empty", got="0 images", rule="each class needs 20", fix="add images."
    )
    assert str(err) == "class 'cat' is empty: got 0 images; each class needs 20. Fix: add images."


def test_parts_that_are_not_given_leave_no_trace() -> None:
    assert str(errors.OurFault("it broke")) == "it broke."


@pytest.mark.parametrize(
    ("kind", "cls", "code"),
    [
        ("user", errors.UserError, 2),
        ("transient", errors.TransientError, 1),
        ("ours", errors.OurFault, 1),
        ("nonsense", errors.OurFault, 1),
    ],
)
def test_an_error_crosses_a_process_as_kind_and_text(
    kind: str, cls: type[errors.FettleError], code: int
) -> None:
    err = errors.from_record(kind, "the text. Fix: mend it.")
    assert type(err) is cls
    assert (str(err), err.exit_code) == ("the text. Fix: mend it.", code)


def test_every_user_error_exits_with_2() -> None:
    found = [c for c in vars(errors).values() if isinstance(c, type)]
    users = [c for c in found if issubclass(c, errors.UserError)]
    assert len(users) == 9
    assert {c.exit_code for c in users} == {2}

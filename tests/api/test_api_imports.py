"""The package's own three functions: there when asked for, and not a millisecond before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fettle


def child(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, fettle\n"
        "print(*[name for name in sys.modules if name.startswith('fettle') or name == 'numpy'])"
    )
    assert child(code) == ["fettle"]


def test_the_functions_need_no_torch_and_no_prefect() -> None:
    code = (
        "import sys, fettle\n"
        "fettle.compress, fettle.evaluate, fettle.load\n"
        "import fettle.api\n"
        "print(*[name for name in ('torch', 'prefect', 'mlflow') if name in sys.modules])"
    )
    assert child(code) == []


def test_the_room_of_that_name_is_the_function_whether_it_was_imported_or_not() -> None:
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        fettle.compress()  # type: ignore[operator]  # a module, to the type checker
    from fettle.compress import technique

    assert fettle.compress.technique is technique
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        fettle.compress()  # type: ignore[operator]


def test_an_attribute_that_there_is_not_is_refused_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="module 'fettle' has no attribute 'compres'"):
        fettle.compres  # type: ignore[attr-defined]  # noqa: B018  # it is asked for
    assert {"compress", "evaluate", "load"} <= set(dir(fettle))

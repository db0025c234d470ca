"""Values of `promote` that another component would refuse later are refused by their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle import params
from fettle.errors import ParamsError
from fettle.rollout.router import nginx_config
from fettle.rollout.router.nginx_config import Routes

TEXT = (Path(__file__).resolve().parent.parent / "params.yaml").read_text()
STICKY = "sticky_key: null"
PLACE = nginx_config.RouterConfig(Path("/r"), "127.0.0.1", 80, 81, (1, 31, 3))


def load(tmp_path: Path, old: str, new: str) -> params.Params:
    assert TEXT.count(old) == 1
    (tmp_path / "params.yaml").write_text(TEXT.replace(old, new))
    return params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "key",
    [
        "cookie:session-id",
        "header:x_user",
        f"cookie:{'a' * 65}",
        "cookie:é",
        "'cookie:'",
        "uid",
        "5",
        '"cookie:a\\n"',
        "'header:X User'",
        "header:Host",
        "header:hOST",
    ],
)
def test_a_sticky_key_that_the_router_cannot_read_is_refused_by_its_line(
    tmp_path: Path, key: str
) -> None:
    at = TEXT[: TEXT.index(STICKY)].count("\n") + 1
    with pytest.raises(ParamsError, match=rf"params\.yaml:{at}: promote\.sticky_key: "):
        load(tmp_path, STICKY, f"sticky_key: {key}")


@pytest.mark.parametrize(
    "key", ["cookie:session_id", "header:X-User", "header:Host-User", f"header:{'a' * 64}"]
)
def test_a_sticky_key_that_is_taken_can_be_rendered(tmp_path: Path, key: str) -> None:
    found = load(tmp_path, STICKY, f"sticky_key: {key}").promote.sticky_key
    assert "map $" in nginx_config.render(PLACE, Routes(1, 2, sticky=found))[0]


@pytest.mark.parametrize("weight", ["0.004", "0", "1.234", "99.999", "100", ".inf", ".nan"])
def test_a_weight_that_the_router_cannot_draw_is_refused(tmp_path: Path, weight: str) -> None:
    with pytest.raises(ParamsError, match=r"promote\.steps\[0\]\.weight_percent: "):
        load(tmp_path, "weight_percent: 1,", f"weight_percent: {weight},")


@pytest.mark.parametrize("weight", ["0.01", "1.5", "4.99"])
def test_a_weight_that_is_taken_can_be_rendered(tmp_path: Path, weight: str) -> None:
    step = load(tmp_path, "weight_percent: 1,", f"weight_percent: {weight},").promote.steps[0]
    text = nginx_config.render(PLACE, Routes(1, 2, weight_percent=step.weight_percent))[0]
    assert f"{float(weight):.2f}% challenger" in text


@pytest.mark.parametrize(
    "old",
    [
        "step_min_s: 60",
        "bake_s: 600",
        "latency_p95_ratio: 1.2",
        "size_ratio_max: 2.0",
        "lease_s: 10 ",
        "margin_multiplier: 20",
    ],
)
def test_infinity_is_no_value_of_a_plan(tmp_path: Path, old: str) -> None:
    name = old.partition(":")[0]
    with pytest.raises(ParamsError, match=rf"promote\.[\w\[\].]*{name}: \.inf is no finite number"):
        load(tmp_path, old, f"{name}: .inf ")

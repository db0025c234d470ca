"""nginx's configuration as text, and what is refused before nginx sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle.errors import ProjectError, UserError
from fettle.rollout.router import nginx_binary, nginx_config
from fettle.rollout.router.nginx_config import Routes


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"weight_percent": 101},
            "a weight is a share of the requests in percent: got 101; 0 to 100.",
        ),
        (
            {"weight_percent": 0.004},
            "the router cannot draw so small a share: got 0.004 %; 0.01 to 99.99 %. "
            "Fix: params.yaml: promote.steps.",
        ),
        (
            {"sticky": "cookie:a;b"},
            "the sticky key cannot be read by the router: got cookie:a;b; cookie:NAME (letters, "
            "digits, _) or header:NAME (letters, digits, -; not Host, which is one for all users). "
            "Fix: params.yaml: promote.sticky_key.",
        ),
        ({"salt": 'x"'}, 'a salt holds letters, digits and _ . : - only: got x".'),
    ],
)
def test_routes_that_nginx_could_not_take_are_refused_before_it(
    changed: dict[str, object], text: str
) -> None:
    place = nginx_config.RouterConfig(Path("/r"), "127.0.0.1", 80, 81, (1, 31, 3))
    with pytest.raises(UserError) as caught:
        nginx_config.render(place, Routes(1, 2, **changed))  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_a_challenger_without_a_server_is_refused() -> None:
    place = nginx_config.RouterConfig(Path("/r"), "127.0.0.1", 80, 81, (1, 31, 3))
    with pytest.raises(UserError) as caught:
        nginx_config.render(place, Routes(1, weight_percent=5))
    assert str(caught.value) == "there is no challenger to send requests to: got 5 %."


def test_the_rendered_configuration_is_the_golden_one() -> None:
    place = nginx_config.RouterConfig(
        Path("/srv/router"),
        "0.0.0.0",
        443,
        9001,
        (1, 31, 3),
        certificate=Path("/tls/cert.pem"),
        certificate_key=Path("/tls/key.pem"),
        user="nobody nogroup",
        key_file="api-key-0a1b2c3d.conf",
        hash_file="sticky-hash-0a1b2c3d.conf",
        metrics_from=("127.0.0.0/8", "10.0.0.0/8"),
        leased=True,
    )
    routes = Routes(
        3101, 3102, feedback=3103, weight_percent=12.5, sticky="cookie:session", salt="r1."
    )
    golden = Path(__file__).parents[2] / "golden" / "router.conf"
    assert nginx_config.render(place, routes)[0] == golden.read_text()


def test_an_older_nginx_gets_no_directive_that_it_does_not_know() -> None:
    place = nginx_config.RouterConfig(Path("/r"), "127.0.0.1", 80, 81, (1, 22, 1))
    assert "keepalive_min_timeout" not in nginx_config.render(place, Routes(1))[0]


def test_a_named_nginx_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nginx_binary.BINARY, "/nowhere/nginx")
    with pytest.raises(ProjectError) as caught:
        nginx_binary.binary()
    assert str(caught.value) == (
        "FETTLE_NGINX names no program: got /nowhere/nginx. Fix: unset FETTLE_NGINX, or mend it."
    )


def test_a_program_that_is_no_nginx_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        nginx_binary.version(Path("/bin/true"))
    assert str(caught.value) == (
        "/bin/true cannot be the router: got no version; nginx 1.22.0 or newer. "
        "Fix: name another with FETTLE_NGINX."
    )

"""nginx configuration, rendered from a frozen value: the same value, the same bytes.

`generation` is the digest of the rest, so that a running nginx can say which value it serves
(ADR 0024 says why nginx). What each directive is for stands in router.conf.jinja.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from fettle.errors import UserError
from fettle.params_schema import STICKY_KEY, STICKY_RULE
from fettle.rollout.promotion.request_records import REPLAYED_STATUSES
from fettle.rollout.router import router_lease
from fettle.serving import api_key_file

TEMPLATE = Path(__file__).with_name("router.conf.jinja")
MIN_TIMEOUT_SINCE = (1, 27, 4)  # the release of nginx that brought keepalive_min_timeout
# An old worker serves kept connections this long after a reload: the kill switch covers it.
MIN_TIMEOUT_S = 10
METRICS_FROM = "FETTLE_METRICS_FROM"
WATCHED = "watched"  # a file of the router's folder; without it no request meets the challenger
RETRY_AFTER_S = 5  # a release that died is up again in about this time


@dataclass(frozen=True, slots=True)
class Routes:
    """What one generation of the router does.

    champion, challenger, spare, feedback   loopback ports; `spare` answers only when the champion
                                            cannot be reached
    weight_percent                          share of the keys, 0 to 100, that meet the challenger
    sticky                                  None, "cookie:NAME" or "header:NAME"
    salt                                    separates one rollout from the next: its draw, and its
                                            kill switch
    """

    champion: int
    challenger: int | None = None
    spare: int | None = None
    feedback: int | None = None
    weight_percent: float = 0.0
    sticky: str | None = None
    salt: str = ""


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Where one router runs: its folder (absolute), addresses, limits, and the binary's version.

    `host` is an IP address; a `certificate` and its key (PEM files) make the public port TLS.
    """

    folder: Path
    host: str
    port: int
    control: int
    version: tuple[int, ...]
    user: str | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    key_file: str | None = None  # of router_key.py, in the folder: refuse who brings no key
    hash_file: str | None = None  # of sticky_hash.py, in the folder: without it no key is logged
    metrics_from: tuple[str, ...] = ()  # networks that may read /metrics
    leased: bool = False  # whether the challenger needs the lease of router_lease.py
    pages: bool = False  # whether /metrics is the one release's own
    workers: int = 1
    connections: int = 2048  # of a worker; a request takes two, of which one is the caller's
    per_address: int = 512  # requests at once, as a proxy before it may send them
    read_s: int = 10
    body_max_bytes: int = 16 * 2**20  # as fettle/serving/request_body.py
    feedback_max_bytes: int = 2**20  # as fettle/rollout/supervisor/late_labels.py
    answer_s: int = 35  # the service's own limit is 30 s, and its 504 says more
    challenger_s: int = 5  # a silent challenger costs a user this much before the champion answers

    @property
    def log(self) -> Path:
        """The log of attempts, which `fettle/rollout/router/access_log.py` reads."""
        return self.folder / "attempts.log"

    def stop(self, routes: Routes) -> Path:
        """Name the kill switch of these routes: while it exists no request meets the challenger.

        One a rollout (`salt`), so that no switch engaged later moves a connection that a client
        kept: its old worker would take it to a release that may be gone.
        """
        return self.folder / f"stop-{routes.salt}"


def render(place: RouterConfig, routes: Routes) -> tuple[str, str]:
    """Return the configuration and its generation (12 hex digits).

    Raises UserError for a weight, sticky key or certificate that nginx could not take.
    """
    _check(place, routes)
    listen = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    fields = {
        **asdict(place),
        **asdict(routes),
        "log": place.log.name,
        "stop": place.stop(routes).name,
        "watched": WATCHED,
        "lease": router_lease.PREFIX,
        "metrics_variable": METRICS_FROM,
        "read_s": place.read_s,
        "feedback_max_bytes": place.feedback_max_bytes,
        "refusal": api_key_file.REFUSAL,
        "listen": listen,
        "weight": f"{routes.weight_percent:.2f}",
        "sticky": _variable(routes.sticky),
        "replayed": " ".join(f"http_{status}" for status in REPLAYED_STATUSES),
        "shutdown_s": place.answer_s + MIN_TIMEOUT_S,
        "retry_after_s": RETRY_AFTER_S,
        "min_timeout": MIN_TIMEOUT_S if place.version >= MIN_TIMEOUT_SINCE else None,
    }
    # no escaping: this is no page, and _check lets no quote or semicolon through
    template = jinja2.Template(
        TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    generation = hashlib.sha256(template.render(**fields, generation="").encode()).hexdigest()[:12]
    return template.render(**fields, generation=generation), generation


def _check(place: RouterConfig, routes: Routes) -> None:
    if not 0 <= routes.weight_percent <= 100:
        raise UserError(
            "a weight is a share of the requests in percent",
            got=f"{routes.weight_percent:g}",
            rule="0 to 100",
        )
    if 0 < routes.weight_percent < 100 and not 0 < float(f"{routes.weight_percent:.2f}") < 100:
        raise UserError(
            "the router cannot draw so small a share",
            got=f"{routes.weight_percent:g} %",
            rule="0.01 to 99.99 %",
            fix="params.yaml: promote.steps",
        )
    if routes.weight_percent > 0 and routes.challenger is None:
        raise UserError(
            "there is no challenger to send requests to", got=f"{routes.weight_percent:g} %"
        )
    if routes.sticky is not None and not re.fullmatch(STICKY_KEY, routes.sticky):
        raise UserError(
            "the sticky key cannot be read by the router",
            got=routes.sticky,
            rule=STICKY_RULE,
            fix="params.yaml: promote.sticky_key",
        )
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{0,80}", routes.salt):
        raise UserError("a salt holds letters, digits and _ . : - only", got=routes.salt)
    if re.search(r"[\s;{}\"'$]", str(place.folder)):
        raise UserError(
            "nginx cannot take this folder's name",
            got=str(place.folder),
            rule="no space, quote, semicolon, brace or dollar sign in it",
            fix="move the project, or link to it from another place",
        )
    if (place.certificate is None) != (place.certificate_key is None):
        raise UserError(
            "TLS needs a certificate and its key",
            got="one of the two",
            fix="name both files, or neither",
        )
    for file in (place.certificate, place.certificate_key):
        if file is not None and not takes_path(file):
            raise refused_path(file)


def takes_path(path: Path) -> bool:
    """Tell whether nginx can read this path between double quotes, spaces and all."""
    return re.search(r"[\"\\$\x00-\x1f]", str(path)) is None


def refused_path(path: Path) -> UserError:
    """Say that `takes_path` does not hold."""
    return UserError(
        "nginx cannot take the name of this file",
        got=str(path),
        rule="no quote, backslash, dollar sign or line break in it",
        fix="copy it elsewhere, or link to it",
    )


def _variable(sticky: str | None) -> str | None:
    """Name nginx's variable of a cookie or a header: "header:X-User" → "$http_x_user"."""
    if sticky is None:
        return None
    kind, name = sticky.split(":")
    # nginx folds a header's name, and takes a cookie's as it is
    return f"$cookie_{name}" if kind == "cookie" else f"$http_{name.lower().replace('-', '_')}"

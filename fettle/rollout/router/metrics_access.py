"""Metrics access: which networks may read `/metrics`, besides this machine.

FETTLE_METRICS_FROM lists them ("10.0.0.0/8, 192.168.1.7"); whoever reads brings the API key too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from fettle.errors import UserError
from fettle.rollout.router.nginx_config import METRICS_FROM

LOOPBACK = ("127.0.0.0/8", "::1/128")


def networks(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return loopback and the networks that the environment names.

    Raises UserError for one that is none.
    """
    found = []
    for word in environ.get(METRICS_FROM, "").replace(",", " ").split():
        try:
            found.append(str(ipaddress.ip_network(word, strict=False)))
        except ValueError as err:
            raise UserError(
                f"{METRICS_FROM} names what is no network",
                got=word,
                rule="addresses or networks, as 10.0.0.0/8 or 192.168.1.7, with commas between",
                fix=f"mend it, or unset {METRICS_FROM}: then this machine alone reads the metrics",
            ) from err
    return tuple(dict.fromkeys((*LOOPBACK, *found)))

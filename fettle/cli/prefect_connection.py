"""The Prefect server of a command: the team's, or the project's own, started if need be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fettle.adapters.local_servers import Server
    from fettle.project import Project


def connect(project: Project) -> Server:
    """Find or start the server, and let Prefect's client in this process use it.

    Raises what keeps a team's server from taking a run.
    """
    from fettle.adapters import local_servers, shared_servers

    shared_servers.refuse(project, os.environ)
    project.state.mkdir(parents=True, exist_ok=True)  # Prefect makes its own folder below it
    server = local_servers.ensure(project, "prefect")
    use(project, server)
    return server


def use(project: Project, server: Server) -> None:
    """Let Prefect's client in this process use a server."""
    from fettle import server_addresses

    found = server_addresses.find_address(project.root, os.environ, "PREFECT_API_URL")
    if found is None or found.place != server_addresses.ENVIRONMENT:
        os.environ.update(server_addresses.marked("PREFECT_API_URL", server.api))
    quiet_logs()


def quiet_logs() -> None:
    """Keep Prefect's own log lines off the terminal: ours say it in a line."""
    for talk in ("HANDLERS_CONSOLE_LEVEL", "INTERNAL_LEVEL"):
        os.environ[f"PREFECT_LOGGING_{talk}"] = "CRITICAL"

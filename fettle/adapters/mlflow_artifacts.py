"""MLflow's artifacts on the disk: which of them belong to no run that MLflow shows.

Read straight from its database, which costs no import of mlflow and changes nothing.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

RUN = re.compile(r"[0-9a-f]{32}")


def orphans(state: Path, *, since_s: float) -> list[Path]:
    """List the folders of runs that were deleted, or never written down, and are old enough.

    None where the database cannot be read: then nobody knows.
    """
    database, folder = state / "mlflow.db", state / "mlflow-artifacts"
    if not database.is_file() or not folder.is_dir():
        return []
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as link:
            rows = link.execute("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'")
            active = {str(run) for (run,) in rows}
    except sqlite3.Error:
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if RUN.fullmatch(path.name)
        and path.name not in active
        and path.is_dir()
        and path.stat().st_mtime < since_s
    )

"""Refusal of one target: an error in its own stages costs it its place, not the others theirs."""

from __future__ import annotations

import errno
import os
import platform
import traceback

from fettle.errors import DataError, FettleError, ModelError, TargetError
from fettle.facts.export_facts import ExportFacts
from fettle.hardware.targets import Target


def is_disk_full(err: BaseException) -> bool:
    """Say whether an exception is a full disk, in whatever words."""
    full = isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or os.strerror(errno.ENOSPC) in str(err)  # safetensors' own error is no OSError


def unavailable_reason(name: str, target: Target, exported: ExportFacts) -> str | None:
    """Say why nothing can be known of the target's file here, or None."""
    if exported.refused is not None:
        return exported.refused
    if exported.unavailable is not None:
        return exported.unavailable
    if target.evidence != "measured":
        return None  # what emulates it runs here, whatever this machine is
    if platform.machine() not in target.machine:
        return (
            f"{name} runs on {target.hardware} ({' or '.join(target.machine)}), this machine is "
            f"{platform.machine()}: a latency taken here would say nothing"
        )
    return None


def refusal_reason(err: Exception) -> str:
    """Return why this target is refused; raise `err` where it concerns the whole run.

    A toolchain may raise anything about a model: what is no error of ours is told with its kind,
    and its traceback goes to stderr.
    """
    if isinstance(err, ModelError | TargetError | DataError):
        return str(err)
    if isinstance(err, FettleError | MemoryError) or is_disk_full(err):
        raise err
    traceback.print_exception(err)
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    text = f"{type(err).__name__}: {lines[0] if lines else 'no message'}".rstrip(".")
    return (
        f"this target failed in a way that was not foreseen: got {text}. Fix: drop it "
        "(params.yaml: targets), or report it with the traceback above; the other targets go on."
    )

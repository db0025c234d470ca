"""Draw the error tree: who is at fault decides the exit code and whether a retry makes sense.

    FettleError
    ├── UserError            exit 2   the input is wrong; the text says where to fix it
    │   ├── ParamsError               params.yaml: key, type, range
    │   ├── DataError                 the data set: missing, empty, unreadable, leaking
    │   ├── ModelError                the given model: cannot be loaded, exported or quantized
    │   ├── TargetError               a target: unknown, its toolchain missing, artefact refused
    │   ├── ProjectError              the folder: no params.yaml, no release yet, stale inputs
    │   ├── BusyError                 another process holds the work
    │   ├── TamperedError             an artefact no longer matches its digest
    │   └── GoalNotMet                the run is done, the stated budget is not met
    ├── TransientError       exit 1   full disk, lost server: the flow retries it with back-off
    └── OurFault             exit 1   a bug of ours: please report it

Foreign errors are translated into these at the border (adapters, runtimes, sources, lower), with
`raise … from err`; nothing inside catches them.
"""

from __future__ import annotations


class FettleError(Exception):
    """Say what was wrong, the value got, the rule, and how to mend it, in one paragraph."""

    kind = "ours"
    exit_code = 1

    def __init__(
        self, what: str, *, got: str | None = None, rule: str | None = None, fix: str | None = None
    ) -> None:
        self.what, self.got, self.rule, self.fix = what, got, rule, fix
        text = what.rstrip(".")
        if got is not None:
            text += f": got {got}"
        if rule is not None:
            text += f"; {rule.rstrip('.')}"
        text += "."
        if fix is not None:
            text += f" Fix: {fix.rstrip('.')}."
        super().__init__(text)


class UserError(FettleError):
    """The input is wrong; nothing was lost, and the text says where to mend it."""

    kind = "user"
    exit_code = 2


class ParamsError(UserError):
    """params.yaml, or a --set, holds an unknown key, a wrong type or a value out of range."""


class DataError(UserError):
    """The data set is missing, empty, unreadable, too dirty, or leaks between splits."""


class ModelError(UserError):
    """The given model cannot be loaded, exported or quantized."""


class TargetError(UserError):
    """A target is unknown, its toolchain is missing, or none of its artefacts may ship."""


class ProjectError(UserError):
    """The current folder is no project, or lacks what the command needs."""


class BusyError(UserError):
    """Another process holds the work."""


class TamperedError(UserError):
    """An artefact no longer matches the digest its stage wrote."""


class GoalNotMet(UserError):
    """The run is done and its best result is kept, but the stated budget is not met."""


class TransientError(FettleError):
    """A fault that may pass: a full disk, a server that did not answer."""

    kind = "transient"


class OurFault(FettleError):
    """A bug of ours."""


def from_record(kind: str, text: str) -> FettleError:
    """Rebuild the error that a stage process left in its error.json (see stages/__main__.py)."""
    cls = {"user": UserError, "transient": TransientError}.get(kind, OurFault)
    err = cls("")
    err.args = (text,)
    err.what = text
    return err

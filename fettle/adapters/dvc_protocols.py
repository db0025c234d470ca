"""DVC's repository as Protocols: what is asked of it here, as DVC itself ships no types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

# {stage: reasons}: a bare one, or {"changed deps": {path: how}}, of params {file: {key: how}}.
DvcStatus = Mapping[str, Sequence[str | Mapping[str, Mapping[str, str | Mapping[str, str]]]]]


class DvcHash(Protocol):
    """A recorded digest; falsy when there is none."""

    value: str | None


class DvcFile(Protocol):
    """A dependency or an output of a stage."""

    fs_path: str
    hash_info: DvcHash

    def checkout(self, *, force: bool) -> object: ...


class DvcStage(Protocol):
    """A stage; what `dvc add` writes is one as well, but has no `name`."""

    name: str
    path: str
    frozen: bool
    deps: Sequence[DvcFile]
    outs: Sequence[DvcFile]

    def changed(self) -> bool: ...
    def changed_outs(self) -> bool: ...
    def status(self) -> DvcStatus: ...
    def save(self) -> None: ...
    def save_deps(self, *, allow_missing: bool) -> None: ...
    def dump(self, *, update_pipeline: bool) -> None: ...


class DvcGraph(Protocol):
    """The graph of all stages: an edge leads from a stage to one that it waits for."""

    def __iter__(self) -> Iterator[DvcStage]: ...
    def successors(self, n: DvcStage) -> Iterator[DvcStage]: ...


class DvcIndex(Protocol):
    """The stages of a repository."""

    graph: DvcGraph
    stages: Sequence[DvcStage]


class DvcStageCache(Protocol):
    """The run-cache."""

    def _load(self, stage: DvcStage) -> object: ...


class DvcRepo(Protocol):
    """A repository, open."""

    index: DvcIndex
    stage_cache: DvcStageCache
    lock: AbstractContextManager[object]


class DvcObject(Protocol):
    """An object's digest, as a lock names it."""

    value: str | None


class DvcStore(Protocol):
    """The cache's objects of one kind of digest."""

    path: str

    def all(self) -> Iterator[str]: ...
    def oid_to_path(self, oid: str) -> str: ...


class DvcStores(Protocol):
    """The cache."""

    def by_scheme(self) -> Iterator[tuple[str, DvcStore | None]]: ...


class DvcRunCache(Protocol):
    """Where the run-cache lies."""

    cache_dir: str


class DvcCacheRepo(Protocol):
    """A repository, open, of which the cache is asked."""

    root_dir: str
    scm: object
    stage_cache: DvcRunCache
    cache: DvcStores
    lock: AbstractContextManager[object]

    def used_objs(
        self, *, revs: Sequence[str] | None, force: bool
    ) -> Mapping[object, set[DvcObject]]: ...
    def __enter__(self) -> DvcCacheRepo: ...
    def __exit__(self, *_: object) -> None: ...

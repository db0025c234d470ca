"""Package facts: the release that was made; its files are described by its own release.json."""

from __future__ import annotations

from fettle.facts.typed_document import TypedDocument


class PackageFacts(TypedDocument):
    """Facts of `stages/package.py`; `digest` is the release's identity (hex)."""

    digest: str
    target: str
    passed: bool
    size_bytes: int

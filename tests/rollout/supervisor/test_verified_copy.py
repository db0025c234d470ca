"""The bytes that run are the bytes that were verified: each release is served from its own copy."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from rehearsed import RolloutHarness, Users

from fettle.adapters import bento_store
from fettle.errors import TamperedError, TransientError
from fettle.rollout.supervisor.state_layout import PinnedRelease
from fettle.rollout.supervisor.verified_copy import VerifiedCopies

FILE = Path("src") / "labels.json"


def flip(file: Path) -> bytes:
    """Flip one bit of a file, whoever may not write it; return what it was."""
    was = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(bytes([was[0] ^ 1]) + was[1:])
    return was


def store(release: PinnedRelease) -> Path:
    return bento_store.bento_folder(release.tag) / FILE


def copy(harness: RolloutHarness, release: PinnedRelease) -> Path:
    return harness.place.arms / release.release / "bento" / FILE


def tick_for(harness: RolloutHarness, seconds: float) -> None:
    assert harness.controller is not None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        harness.controller.tick()
        time.sleep(0.05)


def test_a_release_is_served_from_a_copy_that_nobody_writes(harness: RolloutHarness) -> None:
    release = harness.release(1)
    folder = VerifiedCopies(harness.place.arms).prepare(release)
    assert folder == harness.place.arms / release.release / "bento"
    assert (folder / FILE).read_bytes() == store(release).read_bytes()
    assert (folder / FILE).stat().st_mode & 0o222 == 0


def test_a_byte_flipped_in_the_store_after_the_verification_does_not_run(
    harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, ran = harness.release(1), []
    plain = harness._command

    def between(release: str, bento: Path, port: int) -> list[str]:
        flip(store(champion))  # all was verified, nothing runs yet
        ran.append((bento / FILE).read_bytes())
        return plain(release, bento, port)

    was = store(champion).read_bytes()
    monkeypatch.setattr(harness, "_command", between)
    harness.start(champion)
    assert ran == [was]
    tick_for(harness, 2.5)
    assert harness.arm(champion) is not None  # what runs is untouched
    assert harness.place.problems() == {}


def test_a_byte_flipped_in_the_copy_is_seen_and_what_was_verified_runs_again(
    harness: RolloutHarness,
) -> None:
    champion = harness.release(1)
    harness.start(champion)
    server, was = harness.arm(champion), copy(harness, champion).read_bytes()
    stamp = copy(harness, champion).stat()
    flip(copy(harness, champion))
    os.utime(copy(harness, champion), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    tick_for(harness, 4)
    again = harness.arm(champion)
    assert again is not None
    assert again != server
    assert copy(harness, champion).read_bytes() == was
    assert harness.place.problems() == {}
    with Users(harness.serving.port, count=1) as users:
        time.sleep(0.5)
    assert set(users.statuses) == {200}


def test_a_challenger_whose_copy_was_changed_loses_its_users_and_pauses(
    harness: RolloutHarness,
) -> None:
    controller = harness.start(harness.release(1))
    challenger = harness.release(2)
    with Users(harness.serving.port) as users:
        controller.obey(harness.order(challenger, alpha_promote=1e-15))
        harness.tick_until("step")
        flip(copy(harness, challenger))
        status = harness.tick_until("paused")
    assert set(users.statuses) == {200}
    assert status["weight_percent"] == 0
    assert status["reason"] == "the analysis failed at 50 %: weight 0"
    folder = copy(harness, challenger).parents[1]
    assert harness.place.problems()[f"release {challenger.release}"] == (
        f"the folder that {challenger.release} is served from was changed: {folder}: got changed: "
        "src/labels.json; the bytes that run are those that were signed. Fix: it is made anew when "
        "the release starts: `fettle canary resume`, where its rollout was paused."
    )
    assert harness.arm(challenger) is None


def test_a_new_controller_verifies_the_copy_that_already_runs(harness: RolloutHarness) -> None:
    champion = harness.release(1)
    harness.start(champion).close()
    server = harness.arm(champion)
    flip(copy(harness, champion))
    harness.start(None)
    tick_for(harness, 4)
    assert harness.arm(champion) not in (None, server)


def test_a_copy_that_does_not_hold_is_made_anew_and_a_whole_one_is_kept(
    harness: RolloutHarness,
) -> None:
    release, copies = harness.release(1), VerifiedCopies(harness.place.arms)
    copies.prepare(release)
    born = copy(harness, release).stat().st_ino
    copies.prepare(release)
    assert copy(harness, release).stat().st_ino == born
    was = flip(copy(harness, release))
    copies.prepare(release)
    assert copy(harness, release).read_bytes() == was


def test_neither_a_changed_bento_nor_a_changed_release_is_copied(harness: RolloutHarness) -> None:
    one, two = harness.release(1), harness.release(2)
    flip(store(one))
    flip(Path(two.folder) / FILE.name)
    for release in (one, two):
        with pytest.raises(TamperedError):
            VerifiedCopies(harness.place.arms).prepare(release)
        assert not (harness.place.arms / release.release / "bento").exists()


def test_a_copy_that_cannot_be_written_is_said_and_leaves_nothing(harness: RolloutHarness) -> None:
    release = harness.release(1)
    own = harness.place.arms / release.release
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))  # as on a full disk: no file grows
    try:
        with pytest.raises(TransientError) as caught:
            VerifiedCopies(harness.place.arms).prepare(release)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(
        f"the folder that the release is served from cannot be written: {own / 'bento'}: got "
    )
    assert list(own.iterdir()) == []

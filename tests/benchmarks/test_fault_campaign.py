"""Thirty random faults against a served release: after each, all holds (`make test-chaos`)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from tiny_project import ROOT
from tiny_release import TinyRelease

from benchmarks.chaos_campaign.campaign_project import CampaignProject
from benchmarks.chaos_campaign.fault_campaign import FaultCampaign

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signals and limits"),
]
FAULTS = int(os.environ.get("FETTLE_CHAOS_FAULTS", "30"))
SEED = int(os.environ.get("FETTLE_CHAOS_SEED", "15"))


def test_after_each_of_thirty_random_faults_all_holds(tmp_path: Path) -> None:
    work = TinyRelease(tmp_path / "source")
    work.package()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, work.project.root / name)
    project = CampaignProject(work.project.root, work.release, tmp_path / "scratch")
    result = FaultCampaign(project, SEED, say=print).run(FAULTS)
    assert [one for one in result.faults if one.broken] == []
    assert len(result.faults) == FAULTS
    assert result.judged.challenger > 100
    assert (result.judged.unjudged, result.judged.blind_s) == (0, 0.0)
    assert result.sent > 1000

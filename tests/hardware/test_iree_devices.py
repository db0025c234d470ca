"""IREE's devices: what marks a file as code of a machine. No compiler."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fettle.errors import ModelError
from fettle.hardware.isolated import iree_devices


def elf(machine: int) -> bytes:
    return iree_devices.ELF + b"\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine)


def test_elf_files_inside_another_are_found_by_their_headers() -> None:
    data = b"x" * 7 + elf(243) + b"y" * 50 + elf(183) + iree_devices.ELF + b"no header"
    assert iree_devices.elf_machines(data) == {243, 183}


def test_a_file_with_one_foreign_part_is_refused(tmp_path: Path) -> None:
    entry = tmp_path / "model.vmfb"
    entry.write_bytes(elf(183) + elf(62))
    with pytest.raises(ModelError, match=r"got ELF code of machine 62, 183; "):
        iree_devices.check_code(entry, iree_devices.named("arm64"))
    entry.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"got ELF code of machine none; "):
        iree_devices.check_code(entry, iree_devices.named("riscv64"))
    with pytest.raises(ModelError, match=r"than cuda: got a file without b'.target sm_80'"):
        iree_devices.check_code(entry, iree_devices.named("cuda"))


def test_ptx_texts_are_cut_out_of_a_file() -> None:
    first, second = b".version 7.0\n.target sm_80\n", b".version 7.0\nsecond"
    assert iree_devices.ptx(b"junk" + first + b"\0more" + second + b"\0\0") == [first, second]

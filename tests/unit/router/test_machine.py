import os
from pathlib import Path

import pytest

from lexora_router import machine
from lexora_router.machine import usable_memory

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
LESS, LEAST = PHYSICAL // 2, PHYSICAL // 4
V2 = "0::/system.slice/lexora.service\n"
V1 = "5:cpu,cpuacct:/other\n3:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("own", "files", "usable"),
    [
        (V2, {"system.slice/lexora.service/memory.max": f"{LESS}\n"}, LESS),
        (V2, {"system.slice/lexora.service/memory.max": "max\n", "system.slice/memory.max": f"{LEAST}\n"}, LEAST),
        (V2, {"system.slice/lexora.service/memory.max": f"{LEAST}\n", "system.slice/memory.max": f"{LESS}\n"}, LEAST),
        ("0::/\n", {"memory.max": f"{LESS}\n"}, LESS),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": f"{LESS}\n", "other/memory.max": "1\n"}, LESS),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n"}, PHYSICAL),
        (V2, {}, PHYSICAL),
        (None, {}, PHYSICAL),
    ],
)
def test_the_narrowest_limit_counts(
    own: str | None, files: dict[str, str], usable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "mounted")
    assert usable_memory() == usable

import asyncio
import errno
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lexora_router.workers.coordinator_process import CoordinatorProcess
from lexora_router.workers.log_lines import LogLines

LOG = LogLines(as_json=True, quiet=True)


def test_its_socket_goes_to_the_first_folder_that_can_be_used(tmp_path: Path) -> None:
    cases = (
        ({"RUNTIME_DIRECTORY": f"{tmp_path}:/other"}, tmp_path),
        ({"RUNTIME_DIRECTORY": str(tmp_path / "gone"), "XDG_RUNTIME_DIR": str(tmp_path)}, tmp_path),
        ({"XDG_RUNTIME_DIR": str(tmp_path / "gone")}, Path(tempfile.gettempdir())),
    )
    for environ, parent in cases:
        made = CoordinatorProcess(LOG, environ)
        folder = Path(made.socket).parent
        assert (folder.parent, folder.stat().st_mode & 0o777) == (parent, 0o700)
        made.remove()
        assert not folder.exists()


def there(coordinator: CoordinatorProcess) -> bool:
    return Path(coordinator.socket).exists()


async def test_it_is_started_again_when_it_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    start, starts = subprocess.Popen, 0

    def once_without_room(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*arguments, **settings)

    monkeypatch.setattr(subprocess, "Popen", once_without_room)
    made = CoordinatorProcess(LOG, {})
    keeping = asyncio.create_task(made.keep())
    await made.ready()
    assert there(made)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    made.remove()
    assert starts == 2
    assert '"problem":"Resource temporarily unavailable"' in capfd.readouterr().out

"""The page's settings for logrotate, on the log of a gateway that runs on."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.engine import ScriptedEngine
from tests.support.servers import LEXORA, base_config, write_config
from tests.support.wire import wait_until
from tests.unit.docs.pages import page

LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PLACE = "/var/log/lexora/lexora.log"


@pytest.mark.skipif(LOGROTATE is None, reason="needs logrotate: apt-get install logrotate")
def test_a_rotation_loses_no_line_and_needs_no_signal(tmp_path: Path) -> None:
    assert LOGROTATE is not None
    log, settings = tmp_path / "lexora.log", tmp_path / "logrotate.conf"
    [block] = [text for _, text in page("docs/operations.md").blocks if text.startswith(PLACE)]
    settings.write_text(block.replace(PLACE, str(log)))
    settings.chmod(0o600)
    with ScriptedEngine("m") as engine, log.open("ab") as output:  # as systemd's append: and a shell's >>
        file = write_config(base_config(main={"url": engine.url, "models": ["m"]}), tmp_path)
        with subprocess.Popen([*LEXORA, "serve", "--config", str(file)], stdout=output) as gateway:
            try:
                wait_until(lambda: "serving" in log.read_text(), "it serves", 20)
                [base] = re.findall(r"serving .*http=(\S+)", log.read_text())

                def call() -> str:
                    """The id of a call whose line is in the log."""
                    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
                    asked = httpx.post(f"{base}/v1/chat/completions", json=body).headers["x-request-id"]
                    wait_until(lambda: asked in log.read_text(), "the line")
                    return asked

                before = call()
                command = [LOGROTATE, "--force", "--state", str(tmp_path / "state"), str(settings)]
                subprocess.run(command, check=True, capture_output=True)
                after = call()
            finally:
                gateway.terminate()
                gateway.wait(20)
    old, new = (tmp_path / "lexora.log.1").read_text(), log.read_text()
    assert before in old
    assert before not in new
    assert after in new
    assert "\0" not in new, "the gateway wrote on at its old place"
    assert "stopped" in new

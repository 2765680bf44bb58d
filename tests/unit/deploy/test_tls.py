"""The set-up with TLS: the hook puts the files where the configuration has them, and a gateway serves with them."""

import os
import re
import ssl
import subprocess
from pathlib import Path

import httpx
import yaml
from tests.support.process import REPOSITORY
from tests.support.servers import Gateway, base_config
from tests.support.tls import Authority

FOLDER = REPOSITORY / "deploy" / "tls"


def test_a_gateway_serves_with_it(tmp_path: Path) -> None:
    authority, lineage, folder = Authority(tmp_path), tmp_path / "live", tmp_path / "tls"
    lineage.mkdir()
    pair = authority.issue("server")
    pair.cert.rename(lineage / "fullchain.pem")
    pair.key.rename(lineage / "privkey.pem")
    owner = f"{os.getuid()}:{os.getgid()}"
    env = {"RENEWED_LINEAGE": str(lineage), "LEXORA_TLS_FOLDER": str(folder), "LEXORA_TLS_OWNER": owner}
    for _ in range(2):  # a renewal replaces
        subprocess.run(["sh", str(FOLDER / "renewed.sh")], env=os.environ | env, check=True)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "fullchain.pem": 0o640,
        "privkey.pem": 0o640,
    }
    text = (FOLDER / "lexora.yaml").read_text().replace("/etc/lexora/tls", str(folder))
    given = yaml.safe_load(text)["server"]
    config = base_config(main={"url": "http://127.0.0.1:1"})
    config["server"] |= {**given, "host": "127.0.0.1"}
    (folder / "clients.pem").write_bytes(authority.ca.read_bytes())
    whole = yaml.safe_load(re.sub(r"(?m)^    #(?=[a-z])", "    ", text))["server"]["tls"]
    assert set(whole) - set(given["tls"]) == {"client_ca", "client_auth", "grpc_client_auth"}
    with Gateway(config, tmp_path) as gateway:
        trusted = ssl.create_default_context(cafile=str(authority.ca))
        assert httpx.get(f"{gateway.http}/health/live", verify=trusted).status_code == 200

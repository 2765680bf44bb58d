"""Debian's nginx with the example of this repository, on free ports."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.process import REPOSITORY, Process
from tests.support.wire import wait_until

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
EXAMPLE = REPOSITORY / "deploy/nginx/lexora.conf"
HOST = "llm.example.com"

needs_nginx = pytest.mark.skipif(not NGINX, reason="needs nginx: apt-get install nginx")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of HOST, signed by itself: (certificate, key)."""
    made, key = folder / "fullchain.pem", folder / "privkey.pem"
    subject = ("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    files = ("-keyout", str(key), "-out", str(made))
    subprocess.run(["openssl", "req", "-x509", *kind, *subject, *files], check=True, capture_output=True)
    return made, key


class Nginx(Process):
    """The example between `gateways`, pairs of an HTTP and a gRPC address; `https` is its base URL, `port` its port."""

    def __init__(self, folder: Path, gateways: list[tuple[str, str]]) -> None:
        self.certificate, key = certificate(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        text = EXAMPLE.read_text()
        changes = {"listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;"}
        changes |= {"/etc/ssl/lexora/fullchain.pem": str(self.certificate), "/etc/ssl/lexora/privkey.pem": str(key)}
        for (http, grpc), ports in zip(gateways, ((8001, 50051), (8101, 50151)), strict=True):
            changes |= {f"127.0.0.1:{ports[0]};": f"{http};", f"127.0.0.1:{ports[1]};": f"{grpc};"}
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.file = folder / "nginx.conf"
        paths = "".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        main = f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr; events {{}}"
        user = "user root;" if os.geteuid() == 0 else ""
        self.file.write_text(f"{main}\n{user}\nhttp {{ access_log off; {paths}\n{text}\n}}\n")
        self._arguments = [NGINX, "-p", str(folder), "-c", str(self.file), "-e", "stderr"]
        super().__init__(self._arguments)
        self.https = f"https://127.0.0.1:{self.port}"
        wait_until(self._listens, "nginx listens", 10.0)

    def complaints(self) -> str:
        """What `nginx -t` says of the file, but that it is fine."""
        checked = subprocess.run([*self._arguments, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        return re.sub(r"(?m)^nginx: .*(syntax is ok|test is successful)\n", "", checked.stderr)

    def _listens(self) -> bool:
        assert self.alive, self.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

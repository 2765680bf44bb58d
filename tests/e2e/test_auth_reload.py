"""`auth` changes by a reload: from the next call on, and not at all where the new file cannot be used."""

from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml

from lexora.v1.reload_pb2 import RELOAD_RESULT_APPLIED, RELOAD_RESULT_REFUSED, ReloadReport, ReloadRequest
from lexora_router.access.key_format import NewKey
from tests.e2e.test_keys import HI
from tests.support.keys import ALL, add_key
from tests.support.queueing import CHAT, MODEL, Stub
from tests.support.servers import Gateway, Simulator, calm_config
from tests.support.wire import wait_until


def test_what_is_asked_for_changes_with_the_configuration(sim: Simulator, tmp_path: Path) -> None:
    first, second = (add_key(tmp_path / f"{name}.jsonl", scopes=ALL) for name in ("first", "second"))
    base = calm_config(main={"url": sim.url, "models": [MODEL]}) | {"reload": {"watch": False}}

    def auth(name: str, mode: str = "keys") -> dict[str, Any]:
        return base | {"auth": {"mode": mode, "keys_file": str(tmp_path / f"{name}.jsonl")}}

    with Gateway(base, tmp_path) as gateway, grpc.insecure_channel(gateway.grpc) as channel:

        def reload(config: dict[str, Any], key: NewKey | None) -> ReloadReport:
            gateway.config_file.write_text(yaml.safe_dump(config))
            metadata = () if key is None else (("x-api-key", key.text),)
            report: ReloadReport = Stub(channel).Reload(ReloadRequest(), metadata=metadata).report
            return report

        def answers() -> list[int]:
            """Without a key, with the first and with the second."""
            shown: list[dict[str, str]] = [{}, {"x-api-key": first.text}, {"x-api-key": second.text}]
            return [httpx.post(f"{gateway.http}{CHAT}", json=HI, headers=each, verify=False).status_code for each in shown]

        assert answers() == [200, 200, 200]
        assert reload(auth("first"), None).result == RELOAD_RESULT_APPLIED
        assert answers() == [401, 200, 401]
        refused = reload(auth("absent"), first)
        assert (refused.result, "auth.keys_file: " in refused.problems[0]) == (RELOAD_RESULT_REFUSED, True)
        assert "cannot be read: No such file or directory" in refused.problems[0]
        assert answers() == [401, 200, 401]
        assert reload(auth("second"), first).result == RELOAD_RESULT_APPLIED
        assert answers() == [401, 401, 200]
        third = add_key(tmp_path / "second.jsonl")
        wait_until(
            lambda: httpx.post(f"{gateway.http}{CHAT}", json=HI, headers={"x-api-key": third.text}, verify=False).is_success,
            "the new file to be followed",
        )
        assert httpx.get(f"{gateway.http}/health", verify=False).json()["auth"] == "on"
        report = reload(base, second)
        assert (report.result, [word for word in report.warnings if "auth" in word]) == (RELOAD_RESULT_APPLIED, [])
        assert answers() == [200, 200, 200]


def test_a_folder_that_is_swapped_as_a_whole_is_followed(sim: Simulator, tmp_path: Path) -> None:
    """As Kubernetes mounts a Secret: the file is a link into a folder that a link leads to, which is replaced."""
    keys = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        keys.append(add_key(tmp_path / name / "keys.jsonl"))
    data, link = tmp_path / "..data", tmp_path / "keys.jsonl"
    data.symlink_to("one")
    link.symlink_to("..data/keys.jsonl")
    config = calm_config(main={"url": sim.url, "models": [MODEL]}) | {"auth": {"mode": "keys", "keys_file": str(link)}}
    with Gateway(config, tmp_path) as gateway:

        def answers() -> list[int]:
            shown = [{"x-api-key": key.text} for key in keys]
            return [httpx.post(f"{gateway.http}{CHAT}", json=HI, headers=each, verify=False).status_code for each in shown]

        assert answers() == [200, 401]
        fresh = tmp_path / "..data.new"
        fresh.symlink_to("two")
        fresh.replace(data)
        wait_until(lambda: answers() == [401, 200], "the other folder")

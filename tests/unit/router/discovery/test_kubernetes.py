import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.kube_api import KubeApi, pod

from lexora_router.config.discover import DiscoverConfig
from lexora_router.discovery import kubernetes as module
from lexora_router.discovery.kubernetes import KubernetesService
from lexora_router.discovery.source import LookFailed


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeApi]:
    monkeypatch.setattr(module, "SHORT_SECONDS", 0.0)
    with KubeApi() as api:
        yield api


def service(api: KubeApi, **fields: Any) -> KubernetesService:
    settings = DiscoverConfig(kubernetes={"service": "vllm", "namespace": "prod", "server": api.url} | fields, timeout=5.0)
    assert settings.kubernetes is not None
    return KubernetesService(settings, settings.kubernetes)


async def look(source: KubernetesService) -> Any:
    try:
        async with asyncio.timeout(10):
            return list((await source.look()).addresses)
    except LookFailed as failure:
        return str(failure)


async def until(source: KubernetesService, wanted: list[str]) -> None:
    """Look until these are the addresses; a sign of life, or a wish to look again, may come before."""
    for _ in range(5):
        if await look(source) == wanted:
            return
    raise AssertionError(f"not {wanted}")


async def test_slices_are_listed_in_pages_and_then_watched(api: KubeApi) -> None:
    for number in range(5):
        api.put(f"s{number}", pod(f"10.0.0.{number}"), port=8000)
    source = service(api)
    assert await look(source) == [f"10.0.0.{number}:8000" for number in range(5)]
    assert [query["path"] for query in api.asked] == ["/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices"] * 3
    looking = asyncio.create_task(look(source))
    await asyncio.sleep(0.1)
    assert not looking.done(), "nothing has changed"
    api.put("s1", pod("10.0.0.1"), pod("10.0.0.9"), port=8000)
    assert await looking == [
        "10.0.0.0:8000",
        "10.0.0.1:8000",
        "10.0.0.2:8000",
        "10.0.0.3:8000",
        "10.0.0.4:8000",
        "10.0.0.9:8000",
    ]
    for number in range(5):
        api.remove(f"s{number}")
    await until(source, [])
    assert (api.lists, len(api.watches)) == (1, 1)
    await source.close()


async def test_a_watch_that_is_dropped_goes_on_where_it_was(api: KubeApi) -> None:
    api.put("s", pod("10.0.0.1"), port=8000)
    source = service(api)
    await look(source)
    api.bookmark()
    assert await look(source) == ["10.0.0.1:8000"]
    looking = asyncio.create_task(look(source))
    await asyncio.sleep(0.05)
    api.drop_watches()
    api.put("s", pod("10.0.0.2"), port=8000)
    assert await looking == ["10.0.0.2:8000"]
    assert (api.lists, api.watches) == (1, ["101", "102"]), "by the bookmark's version"
    await source.close()


@pytest.mark.parametrize("watching", [True, False])
async def test_a_version_that_is_forgotten_is_listed_anew(api: KubeApi, watching: bool) -> None:
    api.put("s", pod("10.0.0.1"), port=8000)
    source = service(api)
    await look(source)
    looking = asyncio.create_task(look(source)) if watching else None
    await asyncio.sleep(0.05)
    api.remove("s")
    api.put("t", pod("10.0.0.2"), port=8000)
    if looking is not None:
        await looking
    api.forget()
    found = None
    while api.lists == 1:  # what has come before is said first
        found = await look(source)
    assert found == ["10.0.0.2:8000"]
    await source.close()


async def test_the_token_is_read_again_for_each_request(api: KubeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    source = service(api, token_file=str(token))
    api.token = "first"
    assert await look(source) == f"the API server does not take the token of {token} (401)"
    token.write_text("first\n")
    assert await look(source) == []
    api.token = "second"
    api.drop_watches()
    token.write_text("second")
    looking = asyncio.create_task(look(source))
    await asyncio.sleep(0.05)
    api.put("s", pod("10.0.0.1"), port=8000)
    assert await looking == ["10.0.0.1:8000"]
    await source.close()


async def test_the_namespace_of_the_pod_is_the_default(api: KubeApi, tmp_path: Path) -> None:
    api.put("s", pod("10.0.0.1"), port=8000)
    token = tmp_path / "token"
    token.write_text("t")
    source = service(api, token_file=str(token), namespace=None)
    assert await look(source) == f"{tmp_path}/namespace cannot be read: set kubernetes.namespace"
    (tmp_path / "namespace").write_text("prod")
    assert await look(source) == ["10.0.0.1:8000"]
    await source.close()


async def test_what_cannot_be_found_out_says_why(api: KubeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = service(api)
    api.status = 403
    assert "may not list and watch endpointslices.discovery.k8s.io in namespace prod (403)" in await look(source)
    api.status = 500
    assert await look(source) == "the API server answered 500"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert (
        await look(service(api, server=None)) == "KUBERNETES_SERVICE_HOST is not set, so this is no pod: set kubernetes.server"
    )
    there = service(api, server="https://127.0.0.1:9", ca_file=str(tmp_path / "ca.crt"))
    assert await look(there) == f"{tmp_path}/ca.crt cannot be used: No such file or directory"
    (tmp_path / "token").write_text("t")
    gone = service(api, server="http://127.0.0.1:9", token_file=str(tmp_path / "token"))
    assert (await look(gone)).startswith("the API server cannot be reached: ")


async def test_an_answer_that_is_none_is_refused_and_asked_for_again(api: KubeApi) -> None:
    api.put("s", pod("10.0.0.1"), port=8000)
    source = service(api)
    api.slices["s"]["endpoints"] = "many"
    assert await look(source) == "the API server's answer is not what Kubernetes answers"
    api.put("s", pod("10.0.0.1"), port=8000)
    assert await look(source) == ["10.0.0.1:8000"]
    api.slices["s"] = {}
    api.put("s", pod("10.0.0.2"), port=8000, family="IPv4", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    assert "has not one port but these: a, b" in await look(source)
    api.put("s", pod("10.0.0.2"), port=8000)
    await until(source, ["10.0.0.2:8000"])
    await source.close()

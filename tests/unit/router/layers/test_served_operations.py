import pytest
from tests.unit.router.support import HEAD, Client, Scripted, make_call, make_target

from lexora_contract.operations import EMBEDDINGS
from lexora_router.call import Target
from lexora_router.errors import UnsupportedByBackend
from lexora_router.layers.served_operations import ServedOperations


def refusal(target: Target, path: str) -> UnsupportedByBackend | None:
    return UnsupportedByBackend(f"{target.backend} has no {path}", "model") if path == EMBEDDINGS else None


async def test_what_the_backend_serves_goes_on() -> None:
    inner, client = Scripted(HEAD), Client()
    await ServedOperations(inner, refusal=refusal)(make_call(target=make_target()), client)
    assert client.events == [HEAD]


async def test_what_it_does_not_serve_goes_no_further() -> None:
    inner = Scripted(HEAD)
    with pytest.raises(UnsupportedByBackend, match="main has no /v1/embeddings"):
        await ServedOperations(inner, refusal=refusal)(make_call(target=make_target(), path=EMBEDDINGS), Client())
    assert inner.calls == []

"""lexora.client against real processes: answers, streams, tools, errors, repeated calls, calls that are left early."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from lexora.client import AsyncClient, Client, LexoraError, tool_result
from tests.support import wire
from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
TOOLS = [{"name": "weather", "description": "The weather of a town", "parameters": {"type": "object", "properties": {}}}]


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator("--embedding-model", "bge-m3") as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = base_config(main={"url": engine.url, "models": [MODEL, "bge-m3"]})
    config["rate_limit"] = {"enabled": True, "tiers": {"slow": {"rate": 2, "burst": 1}}}
    config["tenants"] = {"one-at-a-time": {"tier": "slow"}}
    config["routing"]["strict_models"] = True
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.grpc, timeout=20) as client:
        yield client


def test_a_chat_a_stream_and_the_next_turn_agree(client: Client) -> None:
    answer = client.chat(MODEL, "Tell me a story.", max_tokens=12, seed=1)
    assert answer.text
    assert (answer.receipt.backend, answer.receipt.usage.output_tokens) == ("main", 12)
    with client.stream(MODEL, "Tell me a story.", max_tokens=12, seed=1) as stream:
        pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.text == answer.text
    assert (stream.receipt.backend, stream.receipt.usage.output_tokens) == ("main", 12)
    following = [{"role": "user", "content": "Tell me a story."}, answer.message, {"role": "user", "content": "Go on."}]
    assert client.chat(MODEL, following, max_tokens=3).receipt.usage.input_tokens > answer.receipt.usage.input_tokens


def test_tools_whole_and_streamed(client: Client) -> None:
    (asked,) = client.chat(MODEL, "Weather?", tools=TOOLS, tool_choice={"function": "weather"}).tool_calls
    assert (asked.name, type(asked.arguments)) == ("weather", dict)
    stream = client.stream(MODEL, "Weather?", tools=TOOLS, tool_choice={"function": "weather"})
    assert list(stream) == []
    assert [each.name for each in stream.tool_calls] == ["weather"]
    assert tool_result(asked, "sunny").tool_call_id == asked.id


def test_vectors_and_models(client: Client) -> None:
    assert {model.id for model in client.models()} == {MODEL, "bge-m3"}
    assert len(client.embed("bge-m3", ["one", "two"]).embeddings) == 2


def test_errors_say_what_and_why(client: Client) -> None:
    with pytest.raises(LexoraError) as refused:
        client.chat("nope", "Hi")
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    with pytest.raises(LexoraError) as upstream:
        client.stream(MODEL, "Hi", max_tokens=10_000_000)
    assert upstream.value.upstream is not None
    assert upstream.value.upstream.status == 400
    with pytest.raises(LexoraError) as late:
        client.chat(MODEL, "Hi", max_tokens=5_000, timeout=0.3)
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_limited_call_is_repeated_when_the_router_says(gateway: Gateway) -> None:
    with Client(gateway.grpc, user="one-at-a-time", timeout=20, retries=0) as hasty:
        hasty.chat(MODEL, "Hi", max_tokens=1)
        with pytest.raises(LexoraError) as limited:
            hasty.chat(MODEL, "Hi", max_tokens=1)
    assert limited.value.reason == "RATE_LIMITED"
    assert limited.value.retry_after is not None
    with Client(gateway.grpc, user="one-at-a-time", timeout=20, retries=5) as patient:
        for _ in range(3):
            assert patient.chat(MODEL, "Hi", max_tokens=1).text
            assert list(patient.stream(MODEL, "Hi", max_tokens=1))


def test_a_stream_that_is_left_early_is_aborted_at_the_engine(client: Client, engine: Simulator) -> None:
    before = engine.stats()["aborts"]
    for _ in client.stream(MODEL, "Tell me a story.", max_tokens=5_000):
        break
    wire.wait_until(lambda: engine.stats()["aborts"] == before + 1, "the engine to be left")


async def test_the_same_for_asyncio(gateway: Gateway, engine: Simulator) -> None:
    async with AsyncClient(gateway.grpc, timeout=20) as client:
        answer = await client.chat(MODEL, "Tell me a story.", max_tokens=12, seed=1)
        stream = await client.stream(MODEL, "Tell me a story.", max_tokens=12, seed=1)
        assert "".join([text async for text in stream]) == answer.text
        assert stream.receipt.usage.output_tokens == 12
        with pytest.raises(LexoraError) as refused:
            await client.stream("nope", "Hi")
        assert refused.value.reason == "MODEL_NOT_FOUND"
        assert len(await client.models()) == 2
        before = engine.stats()["aborts"]
        async with await client.stream(MODEL, "Tell me a story.", max_tokens=5_000) as left:
            async for _ in left:
                break
        await asyncio.to_thread(wire.wait_until, lambda: engine.stats()["aborts"] == before + 1, "the engine to be left")


ALONE = """
import sys
from lexora.client import Client
loaded = {name.partition(".")[0] for name in sys.modules}
foreign = loaded & {"fastapi", "uvicorn", "pydantic", "httpx", "structlog", "lexora_router"}
with Client.from_env() as client:
    print(client.chat("qwen3-32b", "Hi", max_tokens=3).receipt.usage.output_tokens, sorted(foreign))
"""


@pytest.mark.timeout(300)  # an environment of its own is made
def test_the_client_alone_from_its_own_distribution(gateway: Gateway, tmp_path: Path) -> None:
    def run(*argv: str, **env: str) -> str:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=300, env=env or None)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    root = Path(__file__).parents[2]
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(root / "services/lexora"),
    )
    (wheel,) = tmp_path.glob("spirrow_lexora_client-*.whl")
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    own = str(tmp_path / "venv/bin/python")
    run(own, "-m", "pip", "install", "--quiet", "--no-compile", str(wheel))
    installed = {line.partition("==")[0].lower() for line in run(own, "-m", "pip", "freeze").splitlines()}
    assert {name.partition(" ")[0] for name in installed} == {
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "spirrow-lexora-client",
        "typing_extensions",
    }
    assert run(own, "-c", ALONE, LEXORA_TARGET=gateway.grpc, LEXORA_TIMEOUT="20").split(maxsplit=1) == ["3", "[]\n"]

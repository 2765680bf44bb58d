from __future__ import annotations

import pytest

from lexora_sim import Simulator
from lexora_sim.text.vocabulary import VOCABULARY
from tests.unit.sim.helpers import chat, complete, names


async def test_shape(sim: Simulator) -> None:
    body = (await complete(sim, "import os")).json()
    assert list(body) == names(
        "id object created model choices service_tier system_fingerprint usage kv_transfer_params ec_transfer_params metrics"
    )
    assert list(body["choices"][0]) == names(
        "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids routed_experts"
    )
    assert body["usage"]["completion_tokens"] == 16


async def test_stream_shape(sim: Simulator) -> None:
    answer = await complete(sim, "import os", max_tokens=8, stream=True, stream_options={"include_usage": True})
    assert (
        b',"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}'
        in (answer.chunks[0])
    )
    assert answer.events()[-2]["usage"]["completion_tokens"] == 8


async def test_lists_and_ids(sim: Simulator) -> None:
    body = (await complete(sim, ["import os", "def f"], max_tokens=4, n=2)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["prompt_tokens"] == len(VOCABULARY.encode("import os")) + len(VOCABULARY.encode("def f"))
    assert (await complete(sim, [[20, 21], [22]], max_tokens=1)).json()["usage"]["prompt_tokens"] == 3
    assert (await complete(sim, [10**6])).status == 400
    assert (await complete(sim, [])).status == 400


async def test_echo_and_logprobs(sim: Simulator) -> None:
    choice = (await complete(sim, "import os", max_tokens=1, echo=True, logprobs=1)).json()["choices"][0]
    assert choice["text"].startswith("import os")
    logprobs = choice["logprobs"]
    assert list(logprobs) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]
    assert logprobs["token_logprobs"][0] is None
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert choice["prompt_logprobs"][0] is None
    streamed = await complete(sim, "import os", max_tokens=1, echo=True, stream=True)
    assert streamed.text() == choice["text"]
    assert (await complete(sim, "import os", max_tokens=0, echo=True)).json()["choices"][0]["text"] == "import os"


@pytest.mark.parametrize("seed", [0, 12345678901234])
async def test_a_chat_goes_on_from_its_token_ids_at_every_cut(sim: Simulator, seed: int) -> None:
    whole = (await chat(sim, max_tokens=30, seed=seed, return_token_ids=True)).json()
    prompt, choice = whole["prompt_token_ids"], whole["choices"][0]
    ids, text = choice["token_ids"], choice["message"]["content"]
    for cut in range(1, 30):
        rest = await complete(sim, prompt + ids[:cut], max_tokens=30 - cut, seed=seed, stream=True, return_token_ids=True)
        assert rest.ids() == ids[cut:]
        assert text.endswith(rest.text())
        before = (await chat(sim, max_tokens=cut, seed=seed)).json()["choices"][0]["message"]["content"]
        assert before + rest.text() == text


async def test_continuing_from_text_is_not_the_same(sim: Simulator) -> None:
    first = (await complete(sim, "go", max_tokens=10)).json()["choices"][0]["text"]
    whole = (await complete(sim, "go", max_tokens=20)).json()["choices"][0]["text"]
    assert whole.startswith(first)
    again = (await complete(sim, "go" + first, max_tokens=10)).json()["choices"][0]["text"]
    assert first + again != whole


async def test_a_limit_of_null_is_as_much_as_there_is_room_for(sim: Simulator) -> None:
    free = (await complete(sim, "import os", max_tokens=None)).json()
    assert free["choices"][0]["finish_reason"] == "stop"
    assert free["usage"]["completion_tokens"] > 100

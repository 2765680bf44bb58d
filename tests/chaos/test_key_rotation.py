"""Keys are rotated, revoked and the file breaks and is mended, under load: no call with a key that holds fails."""

import asyncio
from functools import partial
from pathlib import Path

import grpc

from lexora.v1.keys_pb2 import RevokeKeyRequest, RotateKeyRequest
from lexora_contract.times import duration
from tests.support import load
from tests.support.keys import ALL, add_key
from tests.support.queueing import CHAT, MODEL, Stub
from tests.support.servers import Gateway, Simulator, calm_config
from tests.support.wire import wait_until

WORKERS = 8
ROUNDS = 12


def _read_again(gateway: Gateway, before: int) -> bool:
    return gateway.output.count("keys_read") > before


async def test_no_call_fails_while_keys_change(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    ops, first = add_key(file, scopes=ALL), add_key(file, name="turning")
    for number in range(200):
        add_key(file, name=f"other {number}")
    with Simulator("--itl-ms", "0") as sim:
        config = calm_config(main={"url": sim.url, "models": [MODEL]})
        config["auth"] = {"mode": "keys", "keys_file": str(file)}
        with Gateway(config, tmp_path) as gateway:
            now, statuses, over = first.text, list[int](), False

            async def calls(one: load.Client) -> None:
                while not over:
                    answer = await one.post(CHAT, load.chat(MODEL, 2), authorization=f"Bearer {now}")
                    statuses.append(answer.status)

            async def more(count: int) -> None:
                await asyncio.to_thread(wait_until, lambda: len(statuses) >= count, "more calls")

            async with load.client(gateway.http) as one, grpc.aio.insecure_channel(gateway.grpc) as channel:
                stub, mine = Stub(channel), (("authorization", f"Bearer {ops.text}"),)
                workers = [asyncio.create_task(calls(one)) for _ in range(WORKERS)]
                key = first.id
                for number in range(ROUNDS):
                    turned = await stub.RotateKey(RotateKeyRequest(id=key, overlap=duration(3600)), metadata=mine)
                    before = len(statuses)
                    await more(before + WORKERS)  # with the old key, beside the new one
                    now, old, key = turned.secret, key, turned.key.id
                    await more(before + 3 * WORKERS)  # until no worker has the old one
                    await stub.RevokeKey(RevokeKeyRequest(id=old), metadata=mine)
                    if number % 4 == 3:
                        good = file.read_bytes()
                        file.write_bytes(good[: len(good) // 2])
                        await asyncio.to_thread(gateway.wait_for, rf"(?s)(key_file_unreadable.*){{{number // 4 + 1}}}")
                        file.write_bytes(good)
                        readings = gateway.output.count("keys_read")
                        await asyncio.to_thread(wait_until, partial(_read_again, gateway, readings), "the mended file")
                        await more(len(statuses) + WORKERS)
                over = True
                await asyncio.gather(*workers)
                assert set(statuses) == {200}
                assert len(statuses) > ROUNDS * 3 * WORKERS
                assert (await one.post(CHAT, load.chat(MODEL, 2), authorization=f"Bearer {first.text}")).status == 401

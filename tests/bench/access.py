"""`python -m tests.bench.access`: what it costs a call that credentials are asked for, by how many keys there are."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from lexora_contract.port import CallContext
from lexora_router.access.access import Access, OpenAccess
from lexora_router.access.audit import AuditLog
from lexora_router.access.authenticator import Authenticator, Failures
from lexora_router.access.jwt.tokens import Tokens
from lexora_router.access.key_file import edit_keys
from lexora_router.access.key_format import new_key
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.keys import Keys
from lexora_router.access.watched_keys import WatchedKeys
from lexora_router.config.jwt import JwtProvider
from lexora_router.policy.callers import TrustedProxies
from tests.support.issuer import Issuer, SigningKey

SIZES = (10, 100_000)
SAMPLE = 10_000  # calls, each with a key of its own as far as there are so many
ROUNDS = 5
BAR_MICROSECONDS = 8.0
TOKEN_BAR_MICROSECONDS = 15.0


@dataclass(frozen=True)
class Result:
    """CPU to read the file in seconds, of a call in microseconds, and how long a reload held the event loop at most, in ms."""

    keys: int
    read: float
    call: float
    stall: float


def measured(size: int, folder: Path) -> Result:
    """A file of so many keys, and calls by HTTP with keys from it."""
    keys = [new_key() for _ in range(size)]
    records = [
        KeyRecord(id=key.id, sha256=key.digest, name=f"key {number}", tenant=f"team-{number % 1000}", models=("qwen*",))
        for number, key in enumerate(keys)
    ]
    path = folder / f"{size}.jsonl"
    edit_keys(path, lambda _: records)
    began = time.thread_time()
    source = WatchedKeys(path, AuditLog())
    read = time.thread_time() - began
    chosen = random.Random(1).sample(keys, min(size, SAMPLE))
    hops = ("x-forwarded-for", "10.1.2.3")
    contexts = [CallContext((hops, ("authorization", f"Bearer {key.text}"))) for key in chosen]
    asked = Authenticator(keys=Keys(source), failures=Failures(AuditLog()), proxies=TrustedProxies(["127.0.0.0/8"]))
    call = per_call(asked, contexts)
    gc.collect()
    gc.freeze()  # as a serving process does: the objects of this one are no garbage either
    return Result(size, read, call, asyncio.run(stall(source)))


async def tokens_measured() -> list[tuple[int, float]]:
    """Characters of a token, of the usual and of a large size, and what a call with one costs that was seen before."""
    with Issuer() as issuer:
        issuer.keys = [SigningKey("RS256", "first")]
        provider = JwtProvider.model_validate(issuer.provider())
        tokens = Tokens([provider])
        tokens.start()
        asked = Authenticator(tokens=tokens, failures=Failures(AuditLog()), proxies=TrustedProxies(["127.0.0.0/8"]))
        hops, measured = ("x-forwarded-for", "10.1.2.3"), []
        for size in (400, 4000):
            made = [issuer.token(sub=str(each), x="x" * size) for each in range(100)]
            contexts = [CallContext((hops, ("authorization", f"Bearer {token}"))) for token in made]
            for context in contexts:
                await asked.find(context)
            measured.append((len(made[0]), per_call(asked, contexts)))
        await tokens.stop()
        return measured


def per_call(access: Access, contexts: Sequence[CallContext]) -> float:
    """Microseconds of CPU for one call: the best of some rounds, after one to warm up."""
    rounds = [_round(access.known, contexts) for _ in range(ROUNDS + 1)]
    return min(rounds[1:]) * 1e6


def _round(known: Callable[[CallContext], object], contexts: Sequence[CallContext]) -> float:
    began = time.thread_time()
    for place in range(SAMPLE):
        known(contexts[place % len(contexts)])
    return (time.thread_time() - began) / SAMPLE


async def stall(source: WatchedKeys) -> float:
    """The longest time in ms by which a timer of the event loop was late while the file was read again."""
    worst, reading = 0.0, asyncio.create_task(source.refresh())
    while not reading.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - began - 0.001)
    return worst * 1e3


def main() -> int:
    """Print a table; 1 when a call costs more than it may."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # lines are not what is measured
    off = per_call(OpenAccess(), [CallContext()])
    print(f"{'keys':>8}  {'read, s':>8}  {'per call, us':>12}  {'stall in a reload, ms':>21}")
    print(f"{'off':>8}  {'':>8}  {off:12.2f}")
    with tempfile.TemporaryDirectory() as folder:
        results = [measured(size, Path(folder)) for size in SIZES]
    tokens = asyncio.run(tokens_measured())
    for each in results:
        print(f"{each.keys:>8}  {each.read:8.3f}  {each.call:12.2f}  {each.stall:21.1f}")
    for length, cost in tokens:
        print(f"{f'token of {length}':>18}  {cost:12.2f}")
    return int(results[-1].call > BAR_MICROSECONDS or tokens[0][1] > TOKEN_BAR_MICROSECONDS)


if __name__ == "__main__":
    sys.exit(main())

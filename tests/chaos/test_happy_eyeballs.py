"""A name of two addresses of which the first swallows packets: calls are served, and soon."""

import sys
from pathlib import Path

from tests.support.black_hole import no_connection
from tests.support.calls import Caller
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, base_config

# `lexora` with a resolver that has one name more: the machine's own is not a test's to change.
LEXORA = """
import sys
from aiohappyeyeballs import addr_to_addr_infos
from lexora_router.engines import dial

async def resolve(host, port):
    assert host == "engines.test"
    return [addr_to_addr_infos((address, port))[0] for address in ("127.0.0.2", "127.0.0.1")]

dial.resolve = resolve
from lexora_cli.main import main
main()
"""


async def test_every_call_is_served_and_only_the_first_one_waits(tmp_path: Path) -> None:
    async with LoopEngine() as engine:
        engine.answer(reply(b'{"choices":[]}', headers="connection: close\r\n"))
        with no_connection("127.0.0.2", engine.port):
            main = {"url": f"http://engines.test:{engine.port}", "models": ["m"], "connect_timeout": 2.0}
            with Gateway(base_config(main=main), tmp_path, command=[sys.executable, "-c", LEXORA]) as process:
                async with Caller(process.http) as caller:
                    answers = [await caller.call("m") for _ in range(10)]
                assert {(answer.status, answer.told["attempts"]) for answer in answers} == {(200, "1")}
                assert min(answer.seconds for answer in answers[1:]) < answers[0].seconds / 2
                assert "endpoint_down" not in process.output

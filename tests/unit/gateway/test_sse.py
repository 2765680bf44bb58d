import json

from lexora_contract.operations import Dialect
from lexora_gateway.errors import Failure
from lexora_gateway.sse import error_event


def test_newlines_in_the_engines_words_stay_inside_the_event() -> None:
    failed = Failure(502, "x", "api_error", event=b'{\n "error":\r\n {}\r}')
    event = error_event(Dialect.OPENAI, failed)
    assert event == b'data: {\ndata:  "error":\ndata:  {}\ndata: }\n\n'
    lines = event.decode().removesuffix("\n\n").split("\n")
    assert json.loads("\n".join(line.removeprefix("data: ") for line in lines)) == {"error": {}}

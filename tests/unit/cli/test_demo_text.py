import ast
import json
import re

from google.protobuf import json_format

from lexora_cli.demo_text import lines_to_try
from lexora_contract.rpcs import RPCS

TEXT = lines_to_try("http://127.0.0.1:1234", "127.0.0.1:5678", "some-model")


def test_every_body_is_json_that_names_the_model() -> None:
    bodies = [json.loads(body) for body in re.findall(r"-d '(.*?)'", TEXT)]
    assert [(body["call"]["chat"] if "call" in body else body)["model"] for body in bodies] == [
        "some-model",
        "some-model",
        "auto",
        "some-model",
        "some-model",
    ]
    assert [body.get("stream") for body in bodies] == [None, True, None, None, None]


def test_the_grpc_commands_send_messages_of_the_contract() -> None:
    sent = re.findall(r"-d '(.*?)'.*?lexora\.v1\.RouterService/(\w+)$", TEXT, re.M)
    assert [rpc for _, rpc in sent] == ["Stream", "Generate"]
    for body, rpc in sent:
        json_format.Parse(body, RPCS[f"/lexora.v1.RouterService/{rpc}"].request())


def test_every_address_is_the_real_one() -> None:
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", TEXT)) == {"1234", "5678"}


def test_the_python_lines_are_python() -> None:
    block = TEXT.split("(pip install openai)\n")[1].split("gRPC at")[0]
    ast.parse(block)  # as it is: it is there to be copied


def test_programs_are_called_as_they_can_be_from_here() -> None:
    text = lines_to_try("http://h", "h:1", "m", lexora=".venv/bin/lexora", buf=".venv/bin/buf")
    commands = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and "curl h" not in line]
    assert {command for command in commands if "/" in command} == {".venv/bin/lexora", ".venv/bin/buf"}
    assert not {"lexora", "buf"} & set(commands)
    assert "buf" not in lines_to_try("http://h", "h:1", "m", buf="")

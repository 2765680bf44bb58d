import ast
import json
import re

from lexora_cli.demo_text import lines_to_try

TEXT = lines_to_try("http://127.0.0.1:1234", "127.0.0.1:5678", "some-model")


def test_every_body_is_json_that_names_the_model() -> None:
    bodies = [json.loads(body) for body in re.findall(r"-d '(.*?)'", TEXT)]
    assert len(bodies) == 4
    assert [(body.get("chat") or body)["model"] for body in bodies] == ["some-model"] * 4
    assert [body.get("stream") for body in bodies] == [None, True, None, None]


def test_every_address_is_the_real_one() -> None:
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", TEXT)) == {"1234", "5678"}


def test_the_python_lines_are_python() -> None:
    block = TEXT.split("(pip install openai)\n")[1].split("gRPC at")[0]
    ast.parse("\n".join(line.removeprefix("  ") for line in block.splitlines()))

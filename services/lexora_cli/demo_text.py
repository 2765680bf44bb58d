"""The lines to try in a demo."""

import json


def lines_to_try(http: str, grpc: str, model: str, *, lexora: str = "lexora", buf: str = "buf") -> str:
    """Commands that work as they are against a gateway at `http` (base URL) and `grpc` (host:port).

    `lexora` and `buf` are what these programs are called by from here; without `buf`, a development tool, its line is left out.
    """
    chat = {"model": model, "messages": [{"role": "user", "content": "Tell me a story."}]}
    code = {"model": "auto", "messages": [{"role": "user", "content": "Fix my python script"}]}
    typed = {"call": {"chat": {"model": model, "messages": [{"role": "ROLE_USER", "text": "Tell me a story."}]}}}
    header = "-H 'content-type: application/json'"
    service = "lexora.v1.RouterService"
    call = f"{buf} curl --protocol grpc --http2-prior-knowledge -d '{json.dumps(typed)}' http://{grpc}/{service}/Stream"
    with_buf = f"  {call}\n\n" if buf else ""
    return f"""\
HTTP, an OpenAI-compatible server at {http}/v1 (documentation: {http}/docs)

  curl {http}/v1/chat/completions {header} -d '{json.dumps(chat)}'

  curl -N {http}/v1/chat/completions {header} -d '{json.dumps(chat | {"stream": True})}'

Let Lexora choose the model; x-lexora-model says which one it was

  curl -i {http}/v1/chat/completions {header} -d '{json.dumps(code)}'

OpenAI's Python client (pip install openai)

from openai import OpenAI
client = OpenAI(base_url="{http}/v1", api_key="none")
for chunk in client.chat.completions.create(model="{model}", messages={json.dumps(chat["messages"])}, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)

gRPC at {grpc}; no proto files needed, the server reflects its own

{with_buf}  grpcurl -plaintext -d '{json.dumps(typed)}' {grpc} {service}/Generate

  {lexora} chat --router {grpc} "Tell me a story."

Watch it: {http}/ui in a browser, or in a terminal

  {lexora} top --router {grpc}

  {lexora} status --router {grpc}
"""

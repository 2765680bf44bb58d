"""The lines to try in a demo."""

import json


def lines_to_try(http: str, grpc: str, model: str) -> str:
    """Commands that work as they are against a gateway at `http` (base URL) and `grpc` (host:port)."""
    chat = {"model": model, "messages": [{"role": "user", "content": "Tell me a story."}]}
    typed = {"chat": {"model": model, "messages": [{"role": "ROLE_USER", "text": "Tell me a story."}]}}
    header = "-H 'content-type: application/json'"
    service = "lexora.v1.RouterService"
    return f"""\
HTTP, an OpenAI-compatible server at {http}/v1 (documentation: {http}/docs)

  curl {http}/v1/chat/completions {header} -d '{json.dumps(chat)}'

  curl -N {http}/v1/chat/completions {header} -d '{json.dumps(chat | {"stream": True})}'

OpenAI's Python client (pip install openai)

  from openai import OpenAI

  client = OpenAI(base_url="{http}/v1", api_key="none")
  chunks = client.chat.completions.create(model="{model}", messages={chat["messages"]}, stream=True)
  for chunk in chunks:
      print(chunk.choices[0].delta.content or "", end="", flush=True)

gRPC at {grpc}; no proto files needed, the server tells its own

  buf curl --protocol grpc --http2-prior-knowledge -d '{json.dumps(typed)}' http://{grpc}/{service}/Stream

  grpcurl -plaintext -d '{json.dumps(typed)}' {grpc} {service}/Generate

  lexora chat --router {grpc} "Tell me a story."

  lexora status --router {grpc}
"""

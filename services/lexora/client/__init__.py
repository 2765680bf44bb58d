"""A thin client of a Lexora router over gRPC, blocking (`Client`) and for asyncio (`AsyncClient`).

    from lexora.client import Client

    with Client("127.0.0.1:50051") as lexora:
        answer = lexora.chat("qwen3-32b", "Tell me a story.", max_tokens=100)
        print(answer.text, answer.receipt.backend)
        for text in lexora.stream("qwen3-32b", "And another one."):
            print(text, end="", flush=True)

A router with TLS and keys: `Client("llm.example.com:50051", credentials=tls_credentials(ca="ca.pem"), api_key="sk-lx-...")`, or
`Client.from_env()`.

It imports grpc and generated code only. `client.router` and `client.admin` are the stubs with every rpc of the contract, and
`error_of` makes a LexoraError of what these raise.
"""

from lexora.client._aio import AsyncClient, AsyncStream
from lexora.client._answers import Answer, ToolRequest, tool_result
from lexora.client._blocking import Client, Stream
from lexora.client._channel import tls_credentials
from lexora.client._errors import LexoraError, error_of
from lexora.client._settings import Settings

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "LexoraError",
    "Settings",
    "Stream",
    "ToolRequest",
    "error_of",
    "tls_credentials",
    "tool_result",
]

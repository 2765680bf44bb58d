"""The user of a request, which may be too malformed to become a call."""

import msgspec

from lexora.v1 import call_pb2, classify_pb2, embed_pb2
from lexora_contract.port import RawCall
from lexora_router.payload.user_names import UserNames

Request = call_pb2.Call | embed_pb2.EmbedRequest | classify_pb2.ClassifyRequest | RawCall

_decode = msgspec.json.Decoder(UserNames).decode


def user_of(request: Request, body: bytes) -> str:
    """The user that a request's JSON names, also in a `body` beside it, whatever else is wrong; empty if unreadable."""
    try:
        return _decode(body or _json_of(request)).named()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _json_of(request: Request) -> bytes | str:
    match request:
        case classify_pb2.ClassifyRequest() | RawCall():
            return b""
        case embed_pb2.EmbedRequest():
            return request.extra_json
    return request.raw.body or request.chat.extra_json or request.completion.extra_json

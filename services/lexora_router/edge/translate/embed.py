"""EmbedRequest to the body of /v1/embeddings, and its answer back."""

import base64
import binascii
import sys
from array import array

import msgspec

from lexora.v1 import embed_pb2
from lexora_router.edge.translate.shared import encode, new_body, put_model
from lexora_router.edge.translate.shared_answer import Index, decoded, refuse_error, usage
from lexora_router.errors import InvalidRequest, UpstreamInvalid
from lexora_router.payload.fields import Fields
from lexora_router.payload.lenient_json import lenient
from lexora_router.payload.usage import UsageJson


def embed_body(request: embed_pb2.EmbedRequest, default_model: str | None) -> tuple[bytes, Fields]:
    """OpenAI's JSON of this request, and what it says.

    Raises InvalidRequest, whose `param` names the field: "model", "texts", "token_ids" or "extra_json".
    """
    body = new_body(request.extra_json, "extra_json")
    put_model(body, request.model, default_model)
    if request.token_ids.values:
        body["input"] = [list(item.ids) for item in request.token_ids.values]
    elif request.texts.values:
        body["input"] = list(request.texts.values)
    else:
        raise InvalidRequest("texts or token_ids must hold at least one input", "texts")
    if request.HasField("dimensions"):
        body["dimensions"] = request.dimensions
    return encode(body, stream=False)


class _Item(msgspec.Struct, gc=False):
    index: Index = None
    embedding: str | list[float] | None = None


class _Answer(msgspec.Struct, gc=False):
    model: str | None = None
    data: list[_Item | None] | None = None
    usage: UsageJson | None = None
    error: msgspec.Raw | None = None


_decode = lenient(msgspec.json.Decoder(_Answer).decode)


def embed_response(body: bytes) -> embed_pb2.EmbedResponse:
    """Read an answer with vectors as numbers or as base64 of little-endian float32, and put them in the inputs' order.

    Raises UpstreamInvalid when it is no answer of this API. The receipt stays unset.
    """
    answer = decoded(_decode, body)
    refuse_error(answer.error)
    found = [_embedding(place, item) for place, item in enumerate(answer.data or ()) if item]
    found.sort(key=lambda embedding: embedding.index)
    return embed_pb2.EmbedResponse(model=answer.model or "", embeddings=found, usage=usage(answer.usage))


def _embedding(place: int, item: _Item) -> embed_pb2.Embedding:
    vector = item.embedding
    return embed_pb2.Embedding(
        index=place if item.index is None else item.index,
        values=_floats(vector) if isinstance(vector, str) else vector,
    )


def _floats(text: str) -> "array[float]":
    values = array("f")
    try:
        values.frombytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise UpstreamInvalid(f"the engine's embedding is not base64 of float32 numbers: {error}") from None
    if sys.byteorder == "big":
        values.byteswap()
    return values

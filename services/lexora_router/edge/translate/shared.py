"""What every typed request needs on its way to OpenAI's JSON."""

import math
from typing import Any

import msgspec

from lexora.v1 import sampling_pb2
from lexora_router.errors import InvalidRequest
from lexora_router.payload.fields import Fields
from lexora_router.payload.inspect import inspect_object

MAX_EXTRA_BYTES = 1 << 20

Body = dict[str, Any]

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def new_body(extra_json: str, param: str) -> Body:
    """Start a body with the caller's own fields, each as the bytes it was written in.

    Raises InvalidRequest naming `param` when the text is no JSON object or longer than MAX_EXTRA_BYTES.
    """
    if not extra_json:
        return {}
    raw = extra_json.encode()
    if len(raw) > MAX_EXTRA_BYTES:
        raise InvalidRequest(f"{param} is {len(raw)} bytes long; at most {MAX_EXTRA_BYTES} are allowed", param)
    return dict(_object(raw, param))


def raw_object(text: str, param: str) -> msgspec.Raw:
    """Embed a JSON object exactly as written; raises InvalidRequest naming `param` when it is none."""
    raw = text.encode()
    _object(raw, param)
    return msgspec.Raw(raw)


def put_model(body: Body, model: str, default_model: str | None) -> None:
    """Name the model: the typed one, else the one among the extra fields, else the default."""
    if model:
        body["model"] = model
    elif "model" not in body:
        if not default_model:
            raise InvalidRequest("model is missing, and no default model is configured", "model")
        body["model"] = default_model


def put_sampling(body: Body, sampling: sampling_pb2.SamplingParams, param: str) -> None:
    """Add the sampling parameters that are set; raises InvalidRequest for a number that JSON cannot carry.

    The contract names them as OpenAI and vLLM do.
    """
    for field, value in sampling.ListFields():
        name = f"{param}.{field.name}"
        if field.name == "logit_bias":
            body[field.name] = {str(token): _finite(bias, name) for token, bias in sorted(value.items())}
        elif isinstance(value, (int, float)):
            body[field.name] = _finite(value, name)
        else:
            body[field.name] = list(value)


def encode(body: Body, *, stream: bool) -> tuple[bytes, Fields]:
    """The body's bytes, and what they say; how the answer travels is the call's choice, never an extra field's."""
    body.pop("stream", None)
    if stream:
        body["stream"] = True
    else:
        body.pop("stream_options", None)  # engines refuse it without a stream
    return _encoder.encode(body), inspect_object(body)


def _finite(value: float, param: str) -> float:
    if not math.isfinite(value):
        raise InvalidRequest(f"{param} must be a finite number", param)
    return value


def _object(raw: bytes, param: str) -> dict[str, msgspec.Raw]:
    try:
        return _objects.decode(raw)
    except msgspec.ValidationError:
        raise InvalidRequest(f"{param} must be a JSON object", param) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{param} is not valid JSON: {error}", param) from None
    except RecursionError:
        raise InvalidRequest(f"{param} is nested too deeply", param) from None

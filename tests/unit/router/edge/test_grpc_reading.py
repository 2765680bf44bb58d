import pytest

from lexora.v1 import call_pb2, explain_pb2, router_pb2
from lexora.v1.completion_pb2 import CompletionRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import Header, RawCall
from lexora_router.edge.grpc_reading import parted

OPTIONS = CallOptions(request_id="id-1", user="alice", priority=7)
# Every field that the contract has, those of tomorrow included.
TEXTS = {field.name: "x" for field in RawCall.DESCRIPTOR.fields if field.type == field.TYPE_STRING}
CALL = RawCall(**TEXTS, headers=[Header(name="a", value="b")], body=b"body")
assert len(CALL.ListFields()) == len(RawCall.DESCRIPTOR.fields)


@pytest.mark.parametrize("kind", [router_pb2.GenerateRequest, router_pb2.StreamRequest, explain_pb2.ExplainRequest])
def test_nothing_is_lost_and_the_message_lets_go_of_the_body(kind: type[router_pb2.GenerateRequest]) -> None:
    request = kind(call=call_pb2.Call(options=OPTIONS, raw=CALL))
    found = parted(request)
    assert found.message.call.raw.body == b""
    found.message.call.raw.body = found.take_body()
    assert found.message == request
    assert found.take_body() == b""


def test_a_typed_request_stays_as_it_is() -> None:
    request = router_pb2.GenerateRequest(call=call_pb2.Call(completion=CompletionRequest(model="m")))
    assert parted(request).message is request
    assert parted(request).take_body() == b""

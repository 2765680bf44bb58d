import json

from lexora.v1.health_pb2 import BACKEND_STATUS_HEALTHY, BackendHealth, EndpointHealth, HealthResponse
from lexora.v1.router_pb2 import StreamResponse
from lexora.v1.stats_pb2 import GetStatsResponse
from lexora_cli.plain_message import as_data


def test_maps_lists_and_enums() -> None:
    endpoint = EndpointHealth(address="http://a", status=BACKEND_STATUS_HEALTHY, in_flight=2)
    health = HealthResponse(version="1", backends={"main": BackendHealth(endpoints=[endpoint])})
    data = as_data(health)
    assert data["status"] == "unknown"
    [found] = data["backends"]["main"]["endpoints"]
    assert {"address": "http://a", "status": "healthy", "in_flight": 2, "reason": ""}.items() <= found.items()


def test_large_numbers_stay_numbers_and_zeros_are_told() -> None:
    data = as_data(GetStatsResponse(total_requests=2**60, requests_per_model={"b": 2, "a": 1}))
    assert data["total_requests"] == 2**60
    assert data["failed_requests"] == 0
    assert list(data["requests_per_model"].items()) == [("a", 1), ("b", 2)]
    json.dumps(data)


def test_messages_that_are_not_set_are_none() -> None:
    assert as_data(StreamResponse())["receipt"] is None

"""The tables of endpoints, rpcs and errors say what the code does."""

import re
from collections.abc import Iterator
from typing import cast

import pytest
from google.rpc import code_pb2
from tests.unit.docs.pages import code, page

from lexora.v1 import admin_pb2, options_pb2, receipt_pb2, router_pb2
from lexora.v1.recent_calls_pb2 import RecentCall
from lexora.v1.stats_pb2 import GetStatsResponse
from lexora_contract.messages import receipt_of
from lexora_contract.operations import OPERATIONS
from lexora_contract.plain import plain, stats_plain
from lexora_contract.port import RouterPort
from lexora_contract.reasons import REASON_OF_CODE, REASONS
from lexora_gateway.app import create_app
from lexora_gateway.call_headers import call_options
from lexora_gateway.headers import receipt_headers
from lexora_gateway.openai.examples import RECENT, STATS
from lexora_gateway.openai.header_docs import ANSWER, REFUSAL, REQUEST
from lexora_router.errors import RouterError
from lexora_router.version import __version__

SERVICES = (router_pb2.DESCRIPTOR.services_by_name["RouterService"], admin_pb2.DESCRIPTOR.services_by_name["AdminService"])
METHODS = {method.name: method for service in SERVICES for method in service.methods}


def served() -> set[tuple[str, str]]:
    app = create_app(cast("RouterPort", None), version=__version__, max_body_bytes=1, metrics=lambda _: (b"", "text/plain"))
    return {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}


def named(rows: list[list[str]]) -> list[tuple[str, str]]:
    return [(row[0], path) for row in rows for path in code(row[1])]


def test_api_md_has_exactly_the_served_paths() -> None:
    found = named(page("docs/api.md").table("method", "path"))
    assert len(found) == len(set(found))
    assert set(found) == served()


def test_the_first_paths_of_api_md_are_the_relayed_ones() -> None:
    relayed = [path for _, path in named(page("docs/api.md").table("method", "path"))][: len(OPERATIONS)]
    assert relayed == list(OPERATIONS)
    assert f"The paths from `{relayed[0]}` to `{relayed[-1]}` are **relayed**" in page("docs/api.md").text
    assert (relayed[0], relayed[-1]) == ("/v1/chat/completions", "/v1/audio/translations")


def headers_of(table: list[list[str]]) -> set[str]:
    return {header for row in table for header in code(row[0])}


def test_every_header_of_the_openapi_document_is_described() -> None:
    asked, answered = (rows for rows in page("docs/api.md").tables if rows[0][0] == "header")
    assert {parameter["name"] for parameter in REQUEST} <= headers_of(asked)
    assert headers_of(answered) == set(REFUSAL)


def test_the_openapi_document_has_the_headers_that_the_facade_reads_and_writes() -> None:
    full = receipt_pb2.Receipt(
        backend="b", attempts=1, hops=[{"from_backend": "a", "to_backend": "b"}], resume_method="RESUME_METHOD_TEXT"
    )
    full.auto.model = "m"
    full.rate_limit.requests.limit = full.rate_limit.tokens.limit = 1
    written = {name.decode() for name, _ in receipt_headers(receipt_of(full))}
    assert set(ANSWER) == written | {"x-request-id", "x-lexora-explain"}
    asked = {parameter["name"]: parameter["schema"] for parameter in REQUEST}
    for name in ("x-lexora-priority", "x-lexora-fallback", "x-lexora-resume", "x-lexora-max-queue-time", "x-lexora-labels"):
        for value in asked[name].get("enum") or asked[name]["examples"]:
            assert call_options({name.encode(): value.encode()}, "id") != options_pb2.CallOptions(request_id="id")


def test_every_option_of_a_call_and_every_field_of_a_receipt_is_described() -> None:
    fields = [code(row[0])[0] for row in page("docs/api.md").table("field of `CallOptions`")]
    assert fields == list(options_pb2.CallOptions.DESCRIPTOR.fields_by_name)
    (told,) = re.findall(r"answer with a `receipt`:(.*?)\n\n", page("docs/api.md").text, re.S)
    named = re.sub(r"\s+", " ", told.replace("`", "").replace("first token", "first_token"))
    words = {"backend", "endpoint", "attempts", "usage", "hops", "resume_method", "rate_limit", "auto", "lost_tokens"}
    words |= {"request id", "the model asked", "queue time", "time to the first_token", "total time", "trace_id"}
    assert len(words) == len(receipt_pb2.Receipt.DESCRIPTOR.fields)
    assert all(word in named for word in words)


def test_every_field_of_the_statistics_is_described_and_in_the_example() -> None:
    fields = list(stats_plain(GetStatsResponse()))
    named = [field for row in page("docs/api.md").table("field of `/stats`") for field in code(row[0])]
    assert sorted(named) == sorted(fields)
    assert sorted(STATS) == sorted(fields)


def test_the_example_of_a_recent_call_has_all_its_fields() -> None:
    (call,) = RECENT["calls"]
    assert sorted(call) == sorted(plain(RecentCall()))


def test_every_rpc_is_described_and_no_other() -> None:
    methods = list(METHODS)
    assert [code(row[0])[0] for row in page("docs/api.md").table("rpc", "kind")] == methods


def test_streaming_rpcs_are_called_so() -> None:
    for name, kind, *_ in page("docs/api.md").table("rpc", "kind"):
        assert kind == ("server streaming" if METHODS[code(name)[0]].server_streaming else "unary")


@pytest.mark.parametrize("name", ["docs/api.md", "docs/tour.md"])
def test_the_length_of_an_answer_is_that_of_its_body(name: str) -> None:
    whole = [
        (int(found[1]), found[2])
        for language, text in page(name).blocks
        if language == "console"
        for found in re.finditer(r"^content-length: (\d+)\n\n(.*)$", text, re.M)
        if "..." not in found[2]
    ]
    assert whole
    assert [length for length, _ in whole] == [len(body.encode()) for _, body in whole]


def errors(root: type[RouterError] = RouterError) -> Iterator[type[RouterError]]:
    yield root
    for kind in root.__subclasses__():
        yield from errors(kind)


def test_every_error_has_a_reason_of_the_table_and_every_reason_a_use() -> None:
    used = {kind.reason for kind in errors()}
    assert set(REASONS) == used | set(REASON_OF_CODE.values())
    assert all(kind.status == REASONS[kind.reason].status for kind in errors())


def test_the_error_table_says_what_both_wires_do() -> None:
    known = {kind.reason for kind in errors()}
    seen = set()
    for _, http, own_code, grpc_code, reason in page("docs/api.md").table("situation", "HTTP", "`code`"):
        if not reason:
            continue
        name = code(reason)[0]
        seen.add(name)
        if name == "UPSTREAM_ERROR":
            continue  # the engine's own status
        row = REASONS[name]
        assert grpc_code == code_pb2.Code.Name(row.code), name
        assert int(re.match(r"\d{3}", http)[0]) == row.status, name  # type: ignore[index]  # a row has a number
        assert own_code == (f"`{row.openai_code}`" if row.openai_code else "null"), name
    assert known == seen

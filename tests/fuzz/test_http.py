"""Requests made from the OpenAPI document, right ones and wrong ones, with every kind of credential."""

from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.transport import Response

from lexora_contract.operations import Dialect, dialect_of
from tests.fuzz.conftest import LEAKED, MODEL, Fuzzed

pytestmark = pytest.mark.fuzz
# No faults: what is not configured here, and what the caller's own x-request-timeout brings about.
UNAVAILABLE = {"classifier_disabled"}
TOO_LATE = 504
TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _operations(document: dict[str, Any]) -> list[schemathesis.APIOperation[Any, Any, Any, Any]]:
    found = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert len(found) > 25
    return found


def _cases(document: dict[str, Any]) -> st.SearchStrategy[schemathesis.Case]:
    """A case of any operation: as the document says, or not where it says anything that can be wrong."""

    def of(operation: schemathesis.APIOperation[Any, Any, Any, Any], mode: GenerationMode) -> st.SearchStrategy[Any]:
        wrong = mode is GenerationMode.NEGATIVE and (operation.body or operation.query or operation.headers)
        return operation.as_strategy(GenerationMode.NEGATIVE if wrong else GenerationMode.POSITIVE)

    made = st.tuples(st.sampled_from(_operations(document)), st.sampled_from(GenerationMode))
    return st.tuples(made.flatmap(lambda one: of(*one)), st.integers(0, 3)).map(_with_model)


def _with_model(drawn: tuple[schemathesis.Case, int]) -> schemathesis.Case:
    """Three of four that ask a model ask one that is there, and for few tokens."""
    case, number = drawn
    if number and isinstance(case.body, dict) and case.media_type == "application/json":
        case.body = case.body | {"model": MODEL} | {name: 3 for name in TOKENS if name in case.body}
    return case


def wrong(path: str, answer: Response, secret: str) -> str:
    """What is wrong with an answer; empty when nothing is."""
    if "x-request-id" not in answer.headers:
        return "no x-request-id"
    shown = answer.content.decode("utf-8", "replace") + repr(answer.headers)
    if secret and secret in shown:
        return "a secret in it"
    if answer.status_code < 400:
        return ""
    return "it shows code" if LEAKED.search(shown) else _misshapen(path, answer)


def _misshapen(path: str, answer: Response) -> str:
    try:
        error = answer.json()["error"]
        kind, message, code = error["type"], error["message"], error.get("code")
    except (ValueError, KeyError, TypeError):
        return "no error object"
    if not (isinstance(kind, str) and isinstance(message, str) and message):
        return "an error without a type or a message"
    if dialect_of(path) is not Dialect.ANTHROPIC and not {"param", "code"} <= set(error):
        return "an error without `param` or `code`"
    asked_for = code in UNAVAILABLE or (answer.status_code == TOO_LATE and "x-request-timeout" in answer.request.headers)
    return "" if answer.status_code < 500 or asked_for else "an own fault"


@pytest.mark.parametrize("fuzzed", ["off", "keys", "apart"], indirect=True)
def test_no_request_is_the_gateways_own_fault(fuzzed: Fuzzed) -> None:
    document = httpx.get(f"{fuzzed.http}/openapi.json", verify=False).json()
    with requests.Session() as session:
        session.trust_env = False

        @given(_cases(document), fuzzed.credentials)
        def ask(case: schemathesis.Case, credential: str) -> None:
            headers = fuzzed.headers(credential)
            answer = case.call(base_url=fuzzed.http, session=session, headers=headers, timeout=20)
            found = wrong(case.path, answer, fuzzed.secret)
            assert not found, f"{found}: {case.as_curl_command()} -> {answer.status_code} {answer.content[:500]!r}"

        ask()
    fuzzed.settled()

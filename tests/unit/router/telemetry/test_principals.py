from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from tests.unit.router.support import make_call

from lexora_contract.answer import Usage
from lexora_router.principal import STRANGER, Principal
from lexora_router.telemetry.account import CallRecord
from lexora_router.telemetry.principals import MAX_KEYS, PrincipalMetrics


def test_the_first_keys_have_names_and_the_rest_share_one() -> None:
    registry = CollectorRegistry()
    book = PrincipalMetrics(registry)
    for number in range(MAX_KEYS + 7):
        call = make_call(principal=Principal("acme", f"k{number}"), account="acme")
        call.receipt.usage = Usage(2, 3)
        book.end(CallRecord(call, 200, None, "m"))
    for principal in (STRANGER, Principal()):
        book.end(CallRecord(make_call(principal=principal, user="claimed"), 401, None, "m"))
    text = generate_latest(registry).decode()
    assert text.count('lexora_tenant_requests_total{key="k') == MAX_KEYS
    assert 'lexora_tenant_requests_total{key="other",tenant="other"} 7.0' in text
    assert 'lexora_tenant_tokens_output_total{key="k0",tenant="acme"} 3.0' in text
    assert "claimed" not in text

"""The metrics of a facade without a router."""

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder


async def process_metrics(accept: str) -> tuple[bytes, str]:
    """The metrics of a facade without a router: those of its process."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type

"""/metrics: Prometheus' text format or OpenMetrics, compressed or not, as the scraper asks."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import Response
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder, gzip_accepted

if TYPE_CHECKING:
    from fastapi import Request

# The scraper's Accept -> body and content type.
Metrics = Callable[[str], tuple[bytes, str]]


def process_metrics(accept: str) -> tuple[bytes, str]:
    """The metrics of a facade without a router: those of its process."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type


async def scrape(metrics: Metrics, request: Request) -> Response:
    """The answer to a scraper."""
    body, content_type = metrics(request.headers.get("accept", ""))
    headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if gzip_accepted(request.headers.get("accept-encoding", "")):
        body = await asyncio.to_thread(gzip.compress, body, 6)
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers)

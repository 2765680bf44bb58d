"""/metrics: Prometheus' text format or OpenMetrics, compressed or not, as the scraper asks."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

from fastapi import Response
from prometheus_client.exposition import gzip_accepted

if TYPE_CHECKING:
    from fastapi import Request

    from lexora_gateway.parts import Metrics


async def scrape(metrics: Metrics, request: Request) -> Response:
    """The answer to a scraper."""
    body, content_type = await metrics(request.headers.get("accept", ""))
    headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if gzip_accepted(request.headers.get("accept-encoding", "")):
        body = await asyncio.to_thread(gzip.compress, body, 6)
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers)

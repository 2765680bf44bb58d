"""Which callers may observe and administer without credentials."""

from pydantic import Field

from lexora_router.config.section import Section
from lexora_router.config.values import MAX_ITEMS, Network


class AdminConfig(Section):
    """Networks whose callers need no credentials for statistics, metrics, the page and AdminService. None: none."""

    allow: tuple[Network, ...] = Field(default=(), max_length=MAX_ITEMS)

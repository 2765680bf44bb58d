"""What callers have of their own beside the limits of their tenant, whatever their credential is."""

from lexora_router.config.section import Section
from lexora_router.config.values import Positive, Priority, Rate


class Granted(Section):
    """Limits and priorities. None: as the tenant, or the credential itself, has it."""

    rate: Rate | None = None
    burst: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_concurrent: Positive | None = None
    priority: Priority | None = None
    max_priority: Priority | None = None

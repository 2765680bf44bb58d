"""What decides whether and when a call goes on: the queue, the tenants and the rate limits."""

from typing import Self

from pydantic import Field, model_validator

from lexora_router.config.check import rate_limit_faults, tenant_faults
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import MAX_ITEMS, Count, Flag, Number, Positive, Priority, Rate, Seconds, Text


class QueueOverrides(Section):
    """What one backend's queue has of its own. None: as in `queue`."""

    max_size: Count | None = None
    max_bytes: Count | None = None
    timeout: Seconds | None = None
    aging: Seconds | None = None


class QueueConfig(Section):
    """Calls that wait for a slot of a pool."""

    max_size: Count = 1000
    max_bytes: Count | None = None  # of the bodies that wait for one backend; None: a share of the memory
    timeout: Seconds = 60.0
    aging: Seconds = 30.0  # after each such time of waiting, a call counts one class higher

    def overridden(self, own: QueueOverrides | None) -> "QueueConfig":
        """Return this queue with what a backend sets of its own."""
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))


class TenantConfig(Section):
    """What one tenant gets. `priority` is for calls that ask for none; both are capped by `max_priority`."""

    weight: Number = Field(default=1.0, ge=0.001, le=1000)  # its share among tenants of the same priority
    priority: Priority = "normal"
    max_priority: Priority = "high"
    tier: Text | None = None  # of rate_limit.tiers

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        # A default above max_priority is no slip: it is capped like what calls ask for.
        refuse(tenant_faults(self.model_dump(exclude_unset=True)))
        return self


class RateTier(Section):
    """Limits with a name. None: as the defaults of `rate_limit`."""

    rate: Rate | None = None  # requests per second
    burst: Positive | None = None
    tokens_per_minute: Positive | None = None
    max_concurrent: Positive | None = None


class UserLimit(RateTier):
    """Limits of one user. None: as the tier, if there is one, else as the defaults of `rate_limit`."""

    tier: Text | None = None


class RateLimitConfig(Section):
    """Limits per client: requests per second, tokens per minute, and calls at once."""

    enabled: Flag = True
    default_rate: Rate = 1000.0
    default_burst: Positive = 1000
    tokens_per_minute: Positive | None = None
    max_concurrent: Positive | None = (
        1000  # calls under way, those that wait included: slots and queue are never all one client's
    )
    max_users: Positive = 100_000
    tiers: dict[Text, RateTier] = Field(default={}, max_length=MAX_ITEMS)
    users: dict[Text, UserLimit] = Field(default={}, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(rate_limit_faults(self.model_dump()))
        return self

"""What each tenant may ask, and each of its keys and users: the rules of the rate limiter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lexora_router.call import settings_name


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What one user may do: `rate` requests per second, `burst` at once; for the other two None is any number."""

    rate: float = 10.0
    burst: int = 20
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Whose limits are whose: a user's own, else those of the tier, else the default."""

    default: RateLimits = RateLimits()
    users: Mapping[str, RateLimits] = field(default_factory=dict)
    tiers: Mapping[str, RateLimits] = field(default_factory=dict)

    def limits(self, user: str, tier: str) -> RateLimits:
        """Return the limits of this user."""
        own = self.users.get(settings_name(user)) if self.users else None
        return own or (self.tiers.get(tier) if tier else None) or self.default


@dataclass(frozen=True, slots=True)
class Part:
    """What has buckets of its own within its tenant's: a key, or one of the users that the tenant's clients name."""

    kind: Literal["key", "user"]
    tenant: str
    name: str
    limits: RateLimits

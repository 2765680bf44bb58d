"""What the configuration says of tenants: their place in queues, their rate limits, and what a call will about cost."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeVar

from lexora_contract.priority import parse_priority
from lexora_router.call import Call, settings_name
from lexora_router.config import Config, RateLimitConfig
from lexora_router.config.admission import RateTier, TenantConfig
from lexora_router.fleet.shares import Standing
from lexora_router.policy.input_size import input_tokens
from lexora_router.policy.rate_limits import LimitRules, Part, RateLimits
from lexora_router.principal import Grants, Principal

T = TypeVar("T")

# Input that is assumed of a form, most of which is sound.
FORM_TOKENS = 256
# Output that is assumed of a call that names no limit.
ASSUMED_OUTPUT_TOKENS = 256
_CACHED = 10_000  # limits of keys
_LEAST_RATE = 1e-6  # requests per second


def input_estimate(call: Call) -> int:
    """Input tokens of a call, before any engine has counted them; at least 1. The files of a form are no text."""
    if not call.input_estimate:
        form = call.content_type.startswith("multipart/")
        call.input_estimate = FORM_TOKENS if form else input_tokens(call.body)
    return call.input_estimate


def total_estimate(call: Call, context: int | None = None) -> int:
    """Tokens that a call may use in all; each answer has at most the model's `context`, whatever the client claims."""
    output = ASSUMED_OUTPUT_TOKENS if call.max_tokens is None else max(call.max_tokens, 0)
    return input_estimate(call) + (output if context is None else min(output, context)) * call.choices


class Tenancy:
    """Looks tenants up in the configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._standings = {name: _allowed(tenant) for name, tenant in config.tenants.items()}
        self._unlisted = _allowed(TenantConfig())
        self._tiers = {name: tenant.tier or "" for name, tenant in config.tenants.items()}
        self._rules = self.rules()
        self._key_parts: dict[tuple[str, str], tuple[Grants, Part]] = {}
        self._within = any("/" in name for name in config.rate_limit.users)
        # Priority and weight of a call; what it asks for is capped by what its tenant may ask, and its key.
        self.standing: Callable[[Call], Standing] = self._granted if config.auth.enabled else self._listed

    def most_of(self, call: Call) -> int:
        """The highest priority that a call may ask for."""
        most, own = self._standings.get(settings_name(call.tenant), self._unlisted)[1], call.principal.grants.max_priority
        return most if own is None else min(most, own)

    def _listed(self, call: Call) -> Standing:
        known = self._standings
        usual, most = known.get(settings_name(call.tenant), self._unlisted) if known else self._unlisted
        return usual if call.priority is None else Standing(min(call.priority, most), usual.weight)

    def _granted(self, call: Call) -> Standing:
        grants = call.principal.grants
        if grants.priority is grants.max_priority is None:
            return self._listed(call)
        usual, most = self._standings.get(settings_name(call.tenant), self._unlisted)
        if grants.max_priority is not None:
            most = min(most, grants.max_priority)
        asked = usual.priority if grants.priority is None else grants.priority
        return Standing(min(asked if call.priority is None else call.priority, most), usual.weight)

    def parts(self, call: Call) -> Sequence[Part]:
        """What of a known caller's tenant is limited apart: its key, by its grants, and its user, where users have limits."""
        principal, tenant = call.principal, call.tenant
        limited = principal.grants.limited
        if not (limited or self._within):
            return ()
        found = []
        if limited:
            found.append(self._key_part(tenant, principal))
        if self._within:
            user = call.user or call.unnamed
            limits = self._limits_within(tenant, user)
            if limits is not None:
                found.append(Part("user", tenant, user, limits))
        return found

    def _key_part(self, tenant: str, principal: Principal) -> Part:
        grants, part = self._key_parts.get((tenant, principal.key), (None, None))
        if part is None or grants is not principal.grants:
            part = Part("key", tenant, principal.key, _of_key(principal.grants, self._limits_of(tenant)))
            if len(self._key_parts) >= _CACHED:
                self._key_parts.clear()
            self._key_parts[tenant, principal.key] = principal.grants, part
        return part

    def _limits_of(self, tenant: str) -> RateLimits:
        return self._rules.limits(tenant, self.tier(tenant))

    def _limits_within(self, tenant: str, user: str) -> RateLimits | None:
        users, name = self._rules.users, settings_name(user)
        return users.get(f"{tenant}/{name}") or users.get(f"{tenant}/*") or users.get("*/*")

    def tier(self, name: str) -> str:
        """Rate-limit tier of a tenant, empty for none."""
        return self._tiers.get(settings_name(name), "") if self._tiers else ""

    def limits_tokens(self) -> bool:
        """Whether any user's tokens per minute are limited."""
        rules = self.rules()
        return any(limits.tokens_per_minute for limits in (rules.default, *rules.users.values(), *rules.tiers.values()))

    def rules(self) -> LimitRules:
        """Whose rate limits are whose."""
        config = self._config.rate_limit
        tiers = {name: _limits(config, tier) for name, tier in config.tiers.items()}
        users = {
            name: _limits(config, user, config.tiers.get(user.tier or self.tier(name))) for name, user in config.users.items()
        }
        return LimitRules(_limits(config), users, tiers)


def _allowed(tenant: TenantConfig) -> tuple[Standing, int]:
    """The standing of calls that ask for no priority, and the highest that they may ask for."""
    usual, most = parse_priority(str(tenant.priority)), parse_priority(str(tenant.max_priority))
    return Standing(min(usual, most), tenant.weight), most


def _of_key(grants: Grants, tenant: RateLimits) -> RateLimits:
    """Limits of a key, in what it has none of its own those of its tenant. Without a burst it has that of one second."""
    if grants.burst is not None:
        burst = max(grants.burst, 1)
    else:
        burst = tenant.burst if grants.rate is None else min(max(ceil(grants.rate), 1), tenant.burst)
    return RateLimits(
        tenant.rate if grants.rate is None else max(grants.rate, _LEAST_RATE),
        burst,
        tenant.tokens_per_minute if grants.tokens_per_minute is None else max(grants.tokens_per_minute, 1),
        tenant.max_concurrent if grants.max_concurrent is None else grants.max_concurrent,
    )


def _limits(config: RateLimitConfig, *layers: RateTier | None) -> RateLimits:
    """The first layer that says something wins, else the defaults."""

    def first(name: str, default: T) -> T:
        values = (getattr(layer, name) for layer in layers if layer is not None)
        return next((value for value in values if value is not None), default)

    return RateLimits(
        first("rate", config.default_rate),
        first("burst", config.default_burst),
        first("tokens_per_minute", config.tokens_per_minute),
        first("max_concurrent", config.max_concurrent),
    )

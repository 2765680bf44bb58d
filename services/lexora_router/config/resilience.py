"""What happens when an engine fails: retries, fallback, failover and breakers."""

from typing import Self

from pydantic import Field, model_validator

from lexora_router.config.check import health_faults, retry_faults
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import Count, Delay, Flag, Number, Percent, Positive, Resume, Seconds


class RetryConfig(Section):
    """Attempts after a failure, before the first byte of the answer."""

    max_retries: Count = Field(default=3, le=100)
    base_delay: Delay = 1.0
    max_delay: Delay = 30.0
    exponential_base: Number = Field(default=2.0, ge=1, le=100)
    respect_retry_after: Flag = True
    max_retry_after: Delay = 60.0
    on_timeout: Flag = False  # also whole answers that were not there within first_token_timeout
    budget: Number = Field(default=0.2, ge=0, le=1)  # retries as a share of a backend's live traffic
    budget_floor: Number = Field(default=3.0, ge=0, le=1_000_000)  # retries per second and backend that are always allowed

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(retry_faults(self.model_dump()))
        return self


class FallbackConfig(Section):
    """Whether a failed backend's calls go to its fallback_backends."""

    enabled: Flag = True
    on_rate_limit: Flag = True


class FailoverConfig(Section):
    """Whether a stream whose engine dies goes on at another endpoint of the pool."""

    resume: Resume = False  # True: from token ids; "text": from the text where there are no ids


class HealthConfig(Section):
    """Probes of each endpoint, its circuit breaker, and the ejection of outliers from a pool."""

    interval: Seconds = 5.0
    timeout: Seconds = 2.0
    unhealthy_threshold: Positive = 3  # consecutive failed probes that take an endpoint out; a refused connection is enough
    failure_threshold: Positive = 5  # consecutive failures that open the breaker
    failure_rate: Number = Field(default=0.5, gt=0, le=1)  # share of failures in the window that opens it
    min_calls: Positive = 20  # calls in the window without which the share says nothing
    window: Seconds = 30.0
    open_time: Seconds = 5.0  # before the first trial; longer after each failed one
    max_open_time: Seconds = 60.0
    max_ejection_percent: Percent = 50  # of a pool's endpoints
    quarantine: Flag = True  # refuse a request for a while that fails wherever it goes, while others are answered
    slow_start: Delay = 10.0  # until a recovered endpoint has its full share

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(health_faults(self.model_dump()))
        return self

"""Which credentials are asked for."""

from typing import Literal

from lexora_router.config.section import Section


class AuthConfig(Section):
    """Which credentials are asked for, and where they are known from."""

    mode: Literal["off"] = "off"

    @property
    def enabled(self) -> bool:
        """Whether callers must show a credential."""
        return self.mode != "off"

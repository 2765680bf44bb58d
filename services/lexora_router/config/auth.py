"""Which credentials are asked for."""

from typing import Literal

from lexora_router.config.section import Section
from lexora_router.config.values import Text


class AuthConfig(Section):
    """Which credentials are asked for, and where they are known from."""

    mode: Literal["off", "keys", "jwt", "keys+jwt"] = "off"
    keys_file: Text = "lexora_keys.jsonl"  # made and edited by `lexora keys`

    @property
    def enabled(self) -> bool:
        """Whether callers must show a credential."""
        return self.mode != "off"

    @property
    def keys(self) -> bool:
        """Whether keys are taken."""
        return self.mode in ("keys", "keys+jwt")

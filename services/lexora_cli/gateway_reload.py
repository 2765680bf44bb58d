"""What a facade answers its supervisor, which asks for a reload: whether another configuration is there for a new worker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from lexora_router.config import Config
from lexora_router.config.load import ConfigError
from lexora_router.process.reload import FIXED_KEYS, differences
from lexora_router.process.source import ConfigSource

_log = structlog.get_logger("lexora.reload")


class GatewayReload:
    """Looks at certificates with `looks`, and at the configuration, of which a facade can put nothing in force by itself."""

    def __init__(self, config: Config, source: ConfigSource, looks: Sequence[Callable[[], Awaitable[None]]]) -> None:
        self._config = config
        self._source = source
        self._looks = looks

    async def answer(self, _: bytes) -> bytes:
        """The keys that take a new worker, and those that take a new supervisor; or that the configuration is refused."""
        for look in self._looks:
            await look()
        try:
            loaded = await asyncio.to_thread(self._source.load)
        except ConfigError as error:
            _log.error("configuration_refused", trigger="signal", problems=[str(problem) for problem in error.problems])
            return msgspec.json.encode({"refused": True, "roll": (), "fixed": ()})
        changed = set(differences(self._config, loaded.config))
        answer = {"refused": False, "roll": sorted(changed - FIXED_KEYS), "fixed": sorted(changed & FIXED_KEYS)}
        return msgspec.json.encode(answer)

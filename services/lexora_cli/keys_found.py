"""Which keys a command means: those of a router, of a file, or of the configuration."""

import os
from pathlib import Path

from lexora_cli.key_place import KeyPlace, KeysFailure, KeysInFile
from lexora_cli.reach import Reach


def place(router: Reach | None, file: str | None, config: str | None) -> KeyPlace:
    """The router that is named, else the file that is named, else that of the configuration. Raises KeysFailure."""
    if router is not None:
        from lexora_cli.keys_at_router import KeysAtRouter  # noqa: PLC0415 - gRPC takes a while to import

        return KeysAtRouter(router)
    if file is not None:
        return KeysInFile(Path(file))
    from lexora_router.config.load import ConfigError, load  # noqa: PLC0415 - the same with pydantic

    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        raise KeysFailure(f"the configuration cannot be used: {error.problems[0]}; name the file with --file") from None
    auth = loaded.config.auth
    where = loaded.path or "the configuration, of which there is no file yet"
    note = "" if auth.takes_keys else f"no key is asked for: auth.mode is {auth.mode} in {where}"
    if auth.takes_keys and "file" not in auth.keys:
        note = f"no gateway reads this file: auth.keys is {auth.keys} in {where}; make keys at a router (--router HOST:PORT)"
    return KeysInFile(Path(auth.keys_file), note)

"""Addresses in a file of targets, as Prometheus' file_sd_configs have them, in JSON or YAML.

`[{"targets": ["host:port", ...], "labels": {"name": "value"}}]`; see
https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lexora_router.config.regular_file import open_regular
from lexora_router.config.values import base_url
from lexora_router.discovery.source import Found, LookFailed, found

MAX_BYTES = 2**20
LOOK_SECONDS = 0.5
# A file that has just been changed may still be written: half of a list of YAML is a list as well.
SETTLE_SECONDS = 0.2

_Stamp = tuple[int, int, int, int]


class FileTargets:
    """The targets of one file, of the groups that have all of `labels`. A file that cannot be used is tried again."""

    def __init__(self, path: Path, labels: Mapping[str, str]) -> None:
        chosen = ", ".join(f"{name}={value}" for name, value in labels.items())
        self.what = f"file {path}{f' ({chosen})' if chosen else ''}"
        self._path = path
        self._labels = labels
        self._seen: _Stamp | None = None
        self._result: Found | LookFailed | None = None

    async def look(self) -> Found:
        """The targets by now; a file that is as it was is not read again. Raises LookFailed."""
        result, stamp = self._result, await asyncio.to_thread(self._stamp)
        if result is None or stamp != self._seen:
            if result is not None:
                await self._settle(stamp)
            result = self._result = await asyncio.to_thread(self._read)
        if isinstance(result, LookFailed):
            raise LookFailed(str(result), LOOK_SECONDS)
        return result

    async def close(self) -> None:
        """Nothing is held."""

    async def _settle(self, stamp: _Stamp | None) -> None:
        """Return when the file has been left alone for a while, or is gone."""
        while stamp is not None:
            await asyncio.sleep(SETTLE_SECONDS)
            before, stamp = stamp, await asyncio.to_thread(self._stamp)
            if before == stamp:
                return

    def _stamp(self) -> _Stamp | None:
        try:
            return _stamp_of(self._path.stat())
        except OSError:
            return None

    def _read(self) -> Found | LookFailed:
        self._seen = None
        try:
            with open_regular(self._path) as file:
                self._seen = _stamp_of(os.fstat(file.fileno()))
                text = file.read(MAX_BYTES + 1)
            if len(text) > MAX_BYTES:
                raise ValueError(f"is larger than {MAX_BYTES} bytes")
            return found(addresses_in(text, self._labels), LOOK_SECONDS)
        except OSError as error:
            return LookFailed(f"cannot be read: {error.strerror or error}")
        except ValueError as error:
            return LookFailed(str(error))


def addresses_in(text: bytes, labels: Mapping[str, str]) -> Iterator[str]:
    """Every target of the groups that have these labels. Raises ValueError, which says what is wrong in which group."""
    groups = _parsed(text)
    if not isinstance(groups, list):
        raise ValueError('must be a list of groups: [{"targets": ["host:port"]}]')
    for number, group in enumerate(groups, 1):
        if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
            raise ValueError(f"group {number} has no list of targets")
        own = group.get("labels") or {}
        if not isinstance(own, dict):
            raise ValueError(f"labels of group {number} must be a map")
        targets = [_checked(target, number) for target in group["targets"]]
        if all(str(own.get(name)) == value for name, value in labels.items()):
            yield from targets


def _parsed(text: bytes) -> Any:
    """What the text says: JSON, or else YAML, which is slower, and of which JSON is nearly a part."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)  # of an end that came too soon: behind the last line
        line = f", line {min(mark.line + 1, len(text.splitlines()))}" if mark else ""
        raise ValueError(f"is neither JSON nor YAML{line}") from None


def _checked(target: object, group: int) -> str:
    """A target that is an address: `host:port`."""
    if not isinstance(target, str) or "/" in target:
        raise ValueError(f"a target of group {group} is not host:port")
    try:
        base_url(f"http://{target}")
    except ValueError as error:
        raise ValueError(f"a target of group {group} {error}") from None
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or not int(port):
        raise ValueError(f"a target of group {group} has no port")
    return target


def _stamp_of(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

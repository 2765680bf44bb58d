"""The rpcs that edit the file of keys of a running router."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from lexora.v1 import keys_pb2
from lexora_contract.port import CallContext
from lexora_contract.rpcs import CREATE_KEY, GET_KEY, IMPORT_KEYS, LIST_KEYS, REVOKE_KEY, ROTATE_KEY, Rpc
from lexora_contract.times import seconds
from lexora_router.access.key_changes import (
    InvalidKey,
    NoSuchKey,
    Records,
    created,
    found,
    imported,
    revoked,
    rotated,
)
from lexora_router.access.key_file import KeyFileError
from lexora_router.access.key_record import KeyRecord
from lexora_router.access.key_source import KeyStore
from lexora_router.call import Call
from lexora_router.edge.guard import Guard, actor
from lexora_router.edge.key_messages import key_message, now, terms_of, time_of
from lexora_router.edge.pages import after, page, page_size
from lexora_router.errors import AccessUnavailable, InvalidRequest, NotFound, Unimplemented

DEFAULT_KEYS, MOST_KEYS = 100, 1000
MOST_IMPORTED = 1000
MAX_OVERLAP = timedelta(days=366)

_log = structlog.get_logger("lexora.keys")
_Answer = TypeVar("_Answer")


class KeyRpcs:
    """Keys of the file, or of the shared state. Every method raises CallFailed, and nothing else."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    async def create_key(self, request: keys_pb2.CreateKeyRequest, context: CallContext) -> keys_pb2.CreateKeyResponse:
        """Make a key."""
        return await self._of_keys(CREATE_KEY, context, partial(self._create_key, request))

    async def _create_key(self, request: keys_pb2.CreateKeyRequest, keys: KeyStore, by: str) -> keys_pb2.CreateKeyResponse:
        record, key = created(terms_of(request.key), now())
        await keys.edit(lambda records: [*records, record], by)
        return keys_pb2.CreateKeyResponse(key=key_message(record, now()), secret=key.text)

    async def get_key(self, request: keys_pb2.GetKeyRequest, context: CallContext) -> keys_pb2.GetKeyResponse:
        """One key."""
        return await self._of_keys(GET_KEY, context, partial(self._get_key, request))

    async def _get_key(self, request: keys_pb2.GetKeyRequest, keys: KeyStore, by: str) -> keys_pb2.GetKeyResponse:
        return keys_pb2.GetKeyResponse(key=key_message(found(keys.records(), request.id), now()))

    async def list_keys(self, request: keys_pb2.ListKeysRequest, context: CallContext) -> keys_pb2.ListKeysResponse:
        """All keys, a page at a time."""
        return await self._of_keys(LIST_KEYS, context, partial(self._list_keys, request))

    async def _list_keys(self, request: keys_pb2.ListKeysRequest, keys: KeyStore, by: str) -> keys_pb2.ListKeysResponse:
        size, last = page_size(request.page_size, default=DEFAULT_KEYS, most=MOST_KEYS), after(request.page_token)
        records = iter(keys.records())
        if last is not None and last[0] not in (record.id for record in records):  # which leaves those behind it
            raise InvalidRequest("page_token is of a key that is no longer there; begin again.", "page_token")
        shown, token = page(records, size, lambda record: (record.id,))
        time = now()
        return keys_pb2.ListKeysResponse(keys=[key_message(record, time) for record in shown], next_page_token=token)

    async def revoke_key(self, request: keys_pb2.RevokeKeyRequest, context: CallContext) -> keys_pb2.RevokeKeyResponse:
        """End a key now."""
        return await self._of_keys(REVOKE_KEY, context, partial(self._revoke_key, request))

    async def _revoke_key(self, request: keys_pb2.RevokeKeyRequest, keys: KeyStore, by: str) -> keys_pb2.RevokeKeyResponse:
        await keys.edit(lambda records: revoked(records, request.id, now()), by)
        return keys_pb2.RevokeKeyResponse(key=key_message(found(keys.records(), request.id), now()))

    async def rotate_key(self, request: keys_pb2.RotateKeyRequest, context: CallContext) -> keys_pb2.RotateKeyResponse:
        """Make a key that takes another's place."""
        return await self._of_keys(ROTATE_KEY, context, partial(self._rotate_key, request))

    async def _rotate_key(self, request: keys_pb2.RotateKeyRequest, keys: KeyStore, by: str) -> keys_pb2.RotateKeyResponse:
        overlap, expires, made = _overlap(request), None, []
        if request.HasField("expire_time"):
            expires = time_of(request.expire_time, "expire_time")

        def change(records: Records) -> list[KeyRecord]:
            changed, record, key = rotated(records, request.id, overlap, expires, now())
            made.append((record, key))
            return changed

        await keys.edit(change, by)
        (record, key), time = made[-1], now()  # it may have been made again
        old = key_message(found(keys.records(), request.id), time)
        return keys_pb2.RotateKeyResponse(key=key_message(record, time), secret=key.text, replaced_key=old)

    async def import_keys(self, request: keys_pb2.ImportKeysRequest, context: CallContext) -> keys_pb2.ImportKeysResponse:
        """Take over keys by their hashes."""
        return await self._of_keys(IMPORT_KEYS, context, partial(self._import_keys, request))

    async def _import_keys(self, request: keys_pb2.ImportKeysRequest, keys: KeyStore, by: str) -> keys_pb2.ImportKeysResponse:
        if len(request.imported_keys) > MOST_IMPORTED:
            raise InvalidRequest(f"imported_keys must have at most {MOST_IMPORTED}.", "imported_keys")
        wanted = [terms_of(each.key, each.sha256, id=each.key.id) for each in request.imported_keys]
        added: list[KeyRecord] = []

        def change(records: Records) -> list[KeyRecord]:
            changed, new = imported(records, wanted, now())
            added[:] = new
            return changed

        await keys.edit(change, by)
        time = now()
        return keys_pb2.ImportKeysResponse(keys=[key_message(record, time) for record in added])

    async def _of_keys(
        self, rpc: Rpc[Any, Any], context: CallContext, answer: Callable[[KeyStore, str], Awaitable[_Answer]]
    ) -> _Answer:
        async def serve(call: Call) -> _Answer:
            keys = self.guard.serving.keys
            if keys is None:
                raise Unimplemented("This router takes no keys: auth.mode has none.")
            try:
                # An edit that has begun is done to its end, whether its client waits for that or not.
                return await asyncio.shield(asyncio.ensure_future(answer(keys, actor(call))))
            except NoSuchKey as error:
                raise NotFound(str(error)) from None
            except InvalidKey as error:
                raise InvalidRequest(f"The key cannot be made: {error}.", "key") from None
            except KeyFileError as error:
                _log.error("keys_not_changed", rpc=rpc.name, problem=str(error))
                raise AccessUnavailable("The file of keys could not be changed; the router's log has the reason.") from None

        return await self.guard.administered(rpc, context, serve, always=True)


def _overlap(request: keys_pb2.RotateKeyRequest) -> timedelta:
    span = seconds(request.overlap)
    if not 0 <= span <= MAX_OVERLAP.total_seconds():
        raise InvalidRequest(f"overlap must be 0 to {MAX_OVERLAP.days} days.", "overlap")
    return timedelta(seconds=int(span))

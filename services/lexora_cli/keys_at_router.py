"""Keys of a running router, by its AdminService."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from lexora.v1 import keys_pb2
from lexora_cli.client import RouterClient, RouterFailure
from lexora_cli.key_place import KeysFailure, Made
from lexora_cli.reach import Reach
from lexora_contract.times import duration
from lexora_router.access.key_format import NewKey
from lexora_router.access.key_record import KeyRecord
from lexora_router.edge.key_messages import key_message, record_of

IMPORTED_AT_A_TIME = 1000

_Answer = TypeVar("_Answer")


class KeysAtRouter:
    """A KeyPlace that is a router; $LEXORA_API_KEY must be a key with the scope admin."""

    def __init__(self, router: Reach) -> None:
        self.name, self.note = f"the router at {router.address}", ""
        self._router = router

    def create(self, wanted: KeyRecord) -> Made:
        """Make a key for these terms."""
        answer = self._ask(lambda client: client.create_key(keys_pb2.CreateKeyRequest(key=_message(wanted))))
        return _made(answer)

    def show(self, given: str) -> KeyRecord:
        """The key with this id."""
        return record_of(self._ask(lambda client: client.get_key(given)))

    def all(self) -> Sequence[KeyRecord]:
        """Every key, all pages."""
        return [record_of(key) for key in self._ask(lambda client: client.keys())]

    def revoke(self, given: str) -> KeyRecord:
        """End a key now."""
        return record_of(self._ask(lambda client: client.revoke_key(given)))

    def rotate(self, given: str, overlap: timedelta, expires: datetime | None) -> Made:
        """Make a key that takes another's place."""
        request = keys_pb2.RotateKeyRequest(id=given, overlap=duration(overlap.total_seconds()))
        if expires is not None:
            request.expire_time.FromDatetime(expires)
        answer = self._ask(lambda client: client.rotate_key(request))
        made = _made(answer)
        return Made(made.record, made.key, record_of(answer.replaced_key))

    def take(self, wanted: Sequence[KeyRecord]) -> Sequence[KeyRecord]:
        """Take over keys; gives those that were not there."""
        all_keys = [keys_pb2.ImportedKey(key=_message(record), sha256=record.sha256) for record in wanted]
        added: list[KeyRecord] = []
        for first in range(0, len(all_keys), IMPORTED_AT_A_TIME):
            request = keys_pb2.ImportKeysRequest(imported_keys=all_keys[first : first + IMPORTED_AT_A_TIME])
            added += [record_of(key) for key in self._ask(lambda client, request=request: client.import_keys(request))]  # type: ignore[misc]
        return added

    def _ask(self, question: Callable[[RouterClient], _Answer]) -> _Answer:
        try:
            with self._router.client() as client:
                return question(client)
        except RouterFailure as failure:
            raise KeysFailure(str(failure)) from None


def _message(record: KeyRecord) -> keys_pb2.Key:
    return key_message(record, datetime.now(UTC))


def _made(answer: keys_pb2.CreateKeyResponse | keys_pb2.RotateKeyResponse) -> Made:
    return Made(record_of(answer.key), NewKey(answer.key.id, answer.secret))

"""The user's name out of the fields that may have one."""

import msgspec
import pytest

from lexora_contract.limits import MAX_USER
from lexora_router.payload.user_names import UserNames, bounded

DEVICE, SESSION, ACCOUNT = "d" * 64, "5f0c2a1e-8f3b-4d57-9a67-0f1f2e3d4c5b", "0b9d7c52-2f6a-4f0f-8f7b-6f1d2c3b4a59"


def claude(**fields: str) -> str:
    return msgspec.json.encode(msgspec.json.encode(fields).decode()).decode()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("{}", ""),
        ('{"user":"u","safety_identifier":"s","metadata":{"user_id":"m"}}', "u"),
        ('{"user":"","safety_identifier":"s","metadata":{"user_id":"m"}}', "s"),
        ('{"user":null,"safety_identifier":null,"metadata":{"user_id":"m","else":[1]}}', "m"),
        ('{"safety_identifier":7,"metadata":{"user_id":"m"}}', "m"),
        ('{"safety_identifier":"\\u00e9"}', "é"),
        *((f'{{"metadata":{value}}}', "") for value in ("null", "[]", '"user_id"', "5", '{"user_id":5}', '{"user_id":null}')),
        (f'{{"metadata":{{"user_id":"user_{DEVICE}_account_{ACCOUNT}_session_1"}}}}', f"user_{DEVICE}_account_{ACCOUNT}"),
        (f'{{"metadata":{{"user_id":"user_{DEVICE}_account__session_{SESSION}"}}}}', f"user_{DEVICE}_account_"),
        (
            f'{{"metadata":{{"user_id":{claude(device_id=DEVICE, account_uuid=ACCOUNT, session_id=SESSION)}}}}}',
            f"user_{DEVICE}_account_{ACCOUNT}",
        ),
        ('{"metadata":{"user_id":"{not json"}}', "{not json"),
        ('{"metadata":{"user_id":"my_session_1"}}', "my_session_1"),
        (f'{{"user":"user_{DEVICE}_account__session_1"}}', f"user_{DEVICE}_account__session_1"),
    ],
)
def test_the_first_field_that_names_somebody_counts(body: str, name: str) -> None:
    assert msgspec.json.decode(body, type=UserNames).named() == name


def test_a_long_name_is_shortened_and_stays_one_of_its_own() -> None:
    assert bounded("n" * MAX_USER) == "n" * MAX_USER
    one, another = bounded("n" * 300 + "1"), bounded("n" * 300 + "2")
    assert len(one) == len(another) == MAX_USER
    assert one != another
    assert one == bounded("n" * 300 + "1")
    assert len(bounded("\ud800" * 300)) == MAX_USER

"""Keys of Lexora in texts that clients choose: a key may stand where a name, an id or a label belongs."""

import re

from lexora_contract.access import KEY_PREFIX

# The public id may be shown. All that follows it is the secret, also where a text was cut off inside one.
_WRITTEN = re.compile(rf"({KEY_PREFIX}[0-9A-Za-z]{{12}}-)[0-9A-Za-z]+")


def without_secrets(text: str) -> str:
    """The text with the public id alone of each key in it."""
    return _WRITTEN.sub(r"\1***", text) if KEY_PREFIX in text else text

"""The paths of the relayed endpoints, by what their requests' bodies are."""

from lexora_contract.operations import OPERATIONS

JSON_PATHS = tuple(path for path, row in OPERATIONS.items() if not row.form)
FORM_PATHS = tuple(path for path, row in OPERATIONS.items() if row.form)

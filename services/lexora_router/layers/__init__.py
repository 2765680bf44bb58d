"""One file per policy: each layer surrounds the handler below it and imports no other layer."""

"""One file per policy: each layer surrounds the handler below it and knows no other layer."""

"""How long the parts of a request may be, on both wires. Bodies have a limit of their own: `server.max_body_bytes`."""

MAX_REQUEST_ID = 128  # visible ASCII characters
MAX_USER = 256  # characters; of a longer name the beginning and a hash count
MAX_USER_READ = 4096  # characters that are looked at
MAX_IDEMPOTENCY_KEY = 255  # visible ASCII characters
MAX_LABELS = 16  # of a call
MAX_LABEL_KEY = 64  # characters of [a-z0-9_.-]
MAX_LABEL = 256  # printable characters
MAX_TASK = 10_000  # characters of a task that is to be classified
MAX_TRACE = 2048  # characters of traceparent and tracestate; longer ones would only make the engine refuse the request
MAX_FORWARDED = 1024  # characters of x-forwarded-for, from the right, where the nearest proxies are
MAX_REFUSAL = 400  # characters of a refusal of the facade's own that the router writes down

"""How many tokens a request's body will about be, before an engine has counted them: text, and what is no text."""

# English text has about four bytes a token; a request has some JSON around it, which this leaves in as a margin.
BYTES_PER_TOKEN = 4
# An image, a recording or a file in base64: about what a megapixel costs.
MEDIA_TOKENS = 1000
# Shorter base64 is taken for text; bodies are looked at in steps of this size, so a megabyte of text takes 0.2 ms.
LEAST_MEDIA = 4096
_SAMPLE = 64
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"


def input_tokens(body: bytes) -> int:
    """About how many tokens a JSON body has; at least 1. A long string that is all base64 counts as one piece of media.

    Strings are not parsed, only found by their quotes: what this misses an engine's own count settles later.
    """
    hidden = pieces = 0
    at = LEAST_MEDIA
    size = len(body)
    while at < size:
        end = body.find(b'"', at)
        if end < 0:
            break
        start = max(body.rfind(b'"', at - LEAST_MEDIA, at), at - LEAST_MEDIA)
        middle = (start + end) // 2
        if end - start > LEAST_MEDIA and not body[middle : middle + _SAMPLE].translate(None, _BASE64 + b'"'):
            hidden += end - start
            pieces += 1
        at = end + LEAST_MEDIA
    return max(1, (size - hidden) // BYTES_PER_TOKEN + pieces * MEDIA_TOKENS)

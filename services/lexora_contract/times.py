"""Seconds, and the Durations and Timestamps of the contract."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 1_000_000_000


def duration(seconds: float) -> Duration:
    """So many seconds."""
    message = Duration()
    set_duration(message, seconds)
    return message


def set_duration(message: Duration, seconds: float) -> None:
    """So many seconds, in a message that is there: to put one into another copies it by way of its bytes."""
    message.seconds, message.nanos = divmod(round(seconds * 1e9), _NANOS)


def timestamp(unix: float) -> Timestamp:
    """So many seconds after the beginning of 1970, to the millisecond."""
    whole, millis = divmod(round(unix * 1e3), 1000)
    return Timestamp(seconds=whole, nanos=millis * 1_000_000)


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def unix(instant: Timestamp) -> float:
    """An instant in seconds since 1970."""
    return instant.seconds + instant.nanos / 1e9

"""Why no answer came from an engine, or no whole one."""


class TransportError(Exception):
    """No answer, or no whole one, could be had; the message says why, without the address."""

    how = "lost"  # as in errors.UpstreamUnreachable


class ConnectError(TransportError):
    """No connection could be made: nothing was sent."""

    how = "refused"


class ConnectTimeout(ConnectError):
    """No connection was made within `connect_timeout`."""

    how = "timeout"


class InvalidAnswer(TransportError):
    """What came is no HTTP, or has no end."""


class LocalShortage(TransportError):
    """This machine lacks what a connection takes; the other side was not asked."""


class StaleConnection(TransportError):
    """A kept connection was closed as the request was on its way: the engine has read nothing, or not all."""

    how = "stale"

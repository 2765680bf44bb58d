"""What holds for all answers of one endpoint, and the errors of those that break it."""

from collections.abc import Callable

from lexora_contract.content_coding import ContentDecoder, Undecodable, UnknownCoding
from lexora_router.engines.content_decoding import coding_of
from lexora_router.engines.response import Response
from lexora_router.errors import UpstreamInvalid


class AnswerRules:
    """What holds for all answers of one endpoint; `name` is for error messages, `end_mark` whether its streams need theirs."""

    def __init__(self, name: str, *, max_bytes: int, end_mark: bool, clock: Callable[[], float]) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.end_mark = end_mark
        self.clock = clock

    def decoder(self, response: Response) -> ContentDecoder | None:
        """What undoes the content codings. Raises UpstreamInvalid for codings that are not known."""
        try:
            return coding_of(response)
        except UnknownCoding as error:
            raise UpstreamInvalid(
                f"{self.name} answered in the content coding `{error}`, which cannot be read; it was asked for `identity`."
            ) from None

    def undecodable(self, error: Undecodable) -> UpstreamInvalid:
        """What bytes are that are not of their coding."""
        return UpstreamInvalid(f"{self.name} sent an answer that {error} (its content coding).")

    def too_large(self) -> UpstreamInvalid:
        """What an answer is that is larger than allowed."""
        return UpstreamInvalid(f"{self.name} answered more than {self.max_bytes} bytes.", too_large=True)

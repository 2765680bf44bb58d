import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.ranking import LOW_CONFIDENCE, MAX_ALTERNATIVES, Offer, recommend, score

CODER = Offer("coder", ("code",), available=True)
BOTH = Offer("both", ("general", "code", "reasoning"), available=True)
CHAT = Offer("chat", ("general",), available=True)
EYES = Offer("eyes", ("vision",), available=True)
CODE = Label("code", 0.9, "why", "llm")
UNKNOWN = Label("", 0.0, "The kind of task is unknown.", "")


def down(offer: Offer) -> Offer:
    return Offer(offer.model, offer.capabilities, available=False)


@pytest.mark.parametrize(("offer", "points"), [(CODER, 1.0), (BOTH, 0.8), (CHAT, 0.3), (EYES, 0.0), (down(CODER), 0.0)])
def test_scores(offer: Offer, points: float) -> None:
    assert score(offer, "code") == points


def test_the_specialist_goes_first() -> None:
    choice = recommend(CODE, [CHAT, EYES, BOTH, CODER], "chat")
    assert (choice.model, choice.task_type, choice.confidence, choice.by, choice.reasoning) == (
        "coder",
        "code",
        0.9,
        "llm",
        "why",
    )
    assert choice.alternatives == (("both", 0.8), ("chat", 0.3), ("eyes", 0.0))


def test_who_is_down_comes_last() -> None:
    choice = recommend(CODE, [down(CODER), EYES, BOTH], "chat")
    assert choice.model == "both"
    assert choice.alternatives[-1] == ("coder", 0.0)
    assert recommend(CODE, [down(CODER), CHAT], "chat").model == "chat"


def test_an_unknown_task_goes_to_the_default_model_and_says_so() -> None:
    choice = recommend(UNKNOWN, [CODER, CHAT, BOTH], "both")
    assert (choice.model, choice.task_type, choice.confidence, choice.by) == ("both", "", LOW_CONFIDENCE, "default")
    assert choice.reasoning == "The kind of task is unknown. So it is the default model `both`."


def test_a_task_that_nobody_fits_goes_to_the_default_model() -> None:
    choice = recommend(CODE, [EYES, Offer("ears", ("audio",), available=True)], "ears")
    assert (choice.model, choice.task_type, choice.by, choice.confidence) == ("ears", "code", "default", LOW_CONFIDENCE)
    assert "fits `code`" in choice.reasoning


@pytest.mark.parametrize(
    ("offers", "default", "model", "says"),
    [
        ([CODER, down(CHAT)], "chat", "coder", "takes no calls now"),
        ([CODER, EYES], "chat", "coder", "is not among the candidates"),
        ([down(CODER), down(CHAT)], "chat", "chat", "So it is the default"),
        ([], "chat", "chat", "So it is the default"),
    ],
)
def test_where_the_default_model_is_not_to_be_had(offers: list[Offer], default: str, model: str, says: str) -> None:
    choice = recommend(UNKNOWN, offers, default)
    assert (choice.model, choice.by) == (model, "default")
    assert says in choice.reasoning


def test_equal_ones_stay_in_their_order_and_the_list_is_bounded() -> None:
    offers = [Offer(f"m{number}", ("code",), available=True) for number in range(100)]
    choice = recommend(CODE, offers, "m5")
    assert choice.model == "m0"
    assert [model for model, _ in choice.alternatives] == [f"m{number}" for number in range(1, 1 + MAX_ALTERNATIVES)]


NAMES = st.sampled_from(["a", "b", "c", "d"])
WORDS = st.sampled_from(["code", "general", "vision", ""])
OFFERS = st.lists(st.builds(Offer, NAMES, st.lists(WORDS, max_size=3).map(tuple), st.booleans()), unique_by=lambda o: o.model)


@given(OFFERS, WORDS | st.text(), st.floats(0, 1), st.text(), NAMES)
def test_nothing_outside_of_the_offers_is_ever_named(
    offers: list[Offer], kind: str, sure: float, why: str, default: str
) -> None:
    choice = recommend(Label(kind, sure, why, "llm"), offers, default)
    known = {offer.model for offer in offers}
    assert choice.model in (known or {default})
    assert {model for model, _ in choice.alternatives} <= known - {choice.model}
    first = next((offer for offer in offers if offer.model == choice.model), None)
    assert first is None or first.available or not any(offer.available for offer in offers)
    assert all(0 <= points <= 1 for _, points in choice.alternatives)

"""The rpc that names the model for a task: checked, asked, and put into the contract's words."""

from collections.abc import Awaitable, Callable, Sequence

from lexora.v1 import classify_pb2, receipt_pb2
from lexora_contract.answer import Choice
from lexora_contract.enums import value
from lexora_contract.limits import MAX_TASK
from lexora_contract.messages import receipt_message
from lexora_contract.operations import CLASSIFY_TASK
from lexora_router.call import Call
from lexora_router.errors import InvalidRequest, Unimplemented
from lexora_router.telemetry.trace_context import trace_id_of

# Task, candidates, and the call itself, whose receipt gets the choice as well. Raises RouterError.
Classifier = Callable[[str, Sequence[str], Call], Awaitable[Choice]]


async def classify(
    request: classify_pb2.ClassifyRequest, call: Call, classifier: Classifier | None
) -> classify_pb2.ClassifyResponse:
    """Serve the call; raises RouterError."""
    call.path = CLASSIFY_TASK
    call.max_tokens = 0  # it has no output that its client would pay for
    task = request.task_description
    if not task.strip() or len(task) > MAX_TASK:
        raise InvalidRequest(f"task_description must have 1 to {MAX_TASK} characters.", "task_description")
    if classifier is None:
        raise Unimplemented("This router classifies nothing.")
    choice = await classifier(task, request.candidate_models, call)
    receipt = receipt_message(call.receipt)
    receipt.trace_id = trace_id_of(call.trace)
    receipt.ClearField("auto")  # it is the answer itself
    return classify_pb2.ClassifyResponse(
        recommended_model=choice.model,
        task_type=choice.task_type,
        confidence=choice.confidence,
        reasoning=choice.reasoning,
        alternatives=[classify_pb2.ModelScore(model=model, score=score) for model, score in choice.alternatives],
        classifier=value(receipt_pb2.Classifier, choice.by),
        receipt=receipt,
    )

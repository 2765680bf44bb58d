"""POST /v1/classify-task: which model fits a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lexora.v1.classify_pb2 import ClassifyRequest, ClassifyResponse
from lexora.v1.receipt_pb2 import Classifier
from lexora_contract.enums import word
from lexora_contract.limits import MAX_TASK
from lexora_contract.messages import options_message, receipt_of
from lexora_contract.rpcs import CLASSIFY
from lexora_gateway.api_route import ApiRoute
from lexora_gateway.call_headers import call_options
from lexora_gateway.json_body import parse_object

if TYPE_CHECKING:
    from lexora_gateway.client_request import ClientRequest
    from lexora_gateway.response import Answer


class ClassifyTask(ApiRoute):
    """`{"task_description": ..., "candidate_models": [...]}` -> the recommended model and the alternatives."""

    async def serve(self, received: ClientRequest, answer: Answer) -> None:
        """Ask the router to classify."""
        fields = parse_object(received.body)
        task = fields.text("task_description")
        if not task or len(task) > MAX_TASK:
            fields.refuse("task_description", f"a text of 1 to {MAX_TASK} characters")
        models = fields.items("candidate_models", "a list of names")
        if not all(isinstance(model, str) for model in models):
            fields.refuse("candidate_models", "a list of names")
        options = call_options(received.headers, received.request_id, fields.text("user") or "")
        request = ClassifyRequest(options=options_message(options), task_description=task, candidate_models=models)
        received.body = b""  # the request has what is needed of it
        response = await self._router.unary(CLASSIFY, request, received.context)
        answer.json(msgspec.json.encode(_shape(response)), receipt_of(response.receipt))


def _shape(response: ClassifyResponse) -> dict[str, object]:
    return {
        "recommended_model": response.recommended_model,
        "task_type": response.task_type,
        "confidence": response.confidence,
        "reasoning": response.reasoning,
        "classifier": word(Classifier, response.classifier),
        "alternatives": [{"model": other.model, "score": other.score} for other in response.alternatives],
    }

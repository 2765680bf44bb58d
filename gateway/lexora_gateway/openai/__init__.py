"""OpenAI's JSON shapes: the models list, typed requests, the OpenAPI document."""

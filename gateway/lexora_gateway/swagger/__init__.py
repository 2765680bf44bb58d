"""The API's documentation in a browser: Swagger UI, with nothing from the internet."""

from lexora_gateway.swagger.page import Documentation

__all__ = ["Documentation"]

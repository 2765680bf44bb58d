"""The operator's page: static files, and the one document that they poll."""

from lexora_gateway.ui.page import Page

__all__ = ["Page"]

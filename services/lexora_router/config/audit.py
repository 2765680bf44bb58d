"""Where the audit log goes."""

from lexora_router.config.section import Section
from lexora_router.config.values import Text


class AuditConfig(Section):
    """Where the audit log goes. None: into the log, where its logger is `audit`."""

    file: Text | None = None

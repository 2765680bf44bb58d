"""The programs that replicas share, by name."""

from lexora_router.state.program import Programs

PROGRAMS: Programs = {}

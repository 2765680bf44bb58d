"""The programs that replicas share, by name."""

from lexora_router.state.program import Programs
from lexora_router.state.programs.credit import CREDIT
from lexora_router.state.programs.slots import SLOTS

PROGRAMS: Programs = {"credit": CREDIT, "slots": SLOTS}

"""The programs that replicas share, by name."""

from lexora_router.state.program import Programs
from lexora_router.state.programs.board import BOARD
from lexora_router.state.programs.credit import CREDIT
from lexora_router.state.programs.keys import KEYS
from lexora_router.state.programs.responses import RESPONSES
from lexora_router.state.programs.slots import SLOTS

PROGRAMS: Programs = {"board": BOARD, "credit": CREDIT, "keys": KEYS, "responses": RESPONSES, "slots": SLOTS}

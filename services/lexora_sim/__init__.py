"""A simulated vLLM server: same HTTP surface and shapes, deterministic text, a timing model and faults on demand."""

from lexora_sim.settings import SimSettings
from lexora_sim.simulator import Simulator, run, serve

__all__ = ["SimSettings", "Simulator", "run", "serve"]

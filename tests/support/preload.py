"""The imports of the process that others are forked from: those of `lexora serve` and the simulator."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as the command does; gRPC reads this when it is imported

from lexora_cli.fast_imports import fast_imports

with fast_imports():
    import lexora_cli.gateway_process
    import lexora_cli.main
    import lexora_cli.serve_process
    import lexora_gateway.app
    import lexora_router.process.launch
    import lexora_sim.cli

__all__ = ["lexora_cli", "lexora_gateway", "lexora_router", "lexora_sim"]

"""`python -m lexora_router`: the router alone, over gRPC."""

import argparse
import os
import sys
from collections.abc import Sequence

# gRPC's own complaints about a taken address would stand beside ours; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from lexora_router.process.launch import launch, router_options
from lexora_router.process.serve import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser("python -m lexora_router", description="Serve the router over gRPC.")
    parser.add_argument("-c", "--config", metavar="FILE", help="configuration file; looked for in the usual places when absent")
    parser.add_argument("--host", help="address to listen on, instead of server.grpc_host")
    parser.add_argument("--grpc-port", type=_port, metavar="PORT", help="instead of server.grpc_port; 0 picks a free one")
    parser.add_argument("--metrics-port", type=_port, metavar="PORT", help="instead of server.metrics_port; 0 picks a free one")
    options = parser.parse_args(arguments)
    return launch(options.config, router_options(options.host, options.grpc_port, options.metrics_port), serve)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (0 to 65535)")
    return number


if __name__ == "__main__":
    sys.exit(main())

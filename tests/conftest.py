"""What holds for all tests."""

import os
import sys

from hypothesis import HealthCheck, settings

# Where containers set this, each process that a test starts would compile all that it imports: a second of CPU for each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A loaded machine is no fault of the code: neither one slow example nor slow generation fails a property. The examples are the
# same in each run, so that a change that fails is at fault; `make test-long` looks for new ones.
settings.register_profile("lexora", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=5000, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("lexora")

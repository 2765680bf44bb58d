"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A loaded machine is no fault of the code: neither one slow example nor slow generation fails a property.
settings.register_profile("lexora", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lexora")

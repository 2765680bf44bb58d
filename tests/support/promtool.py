"""Prometheus' own tool."""

import shutil

import pytest

PROMTOOL = shutil.which("promtool") or "promtool"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")

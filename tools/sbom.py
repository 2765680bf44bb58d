"""Prints what an image consists of, in CycloneDX 1.6: python tools/sbom.py ROOT SITE_PACKAGES

Debian's packages come from ROOT/var/lib/dpkg/status.d, Python's from the metadata in SITE_PACKAGES.
"""

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

DEBIAN = "bookworm"


def debian_packages(root: Path) -> Iterator[dict[str, Any]]:
    """A component for each package of Debian."""
    for path in sorted((root / "var/lib/dpkg/status.d").iterdir()):
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+): (.+)$", path.read_text(encoding="utf-8")))
        name, version, architecture = (fields[field] for field in ("Package", "Version", "Architecture"))
        purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro={DEBIAN}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def python_packages(folder: Path) -> Iterator[dict[str, Any]]:
    """A component for each distribution of Python."""
    found = sorted(distributions(path=[str(folder)]), key=_name)
    for each in found:
        purl = f"pkg:pypi/{_name(each)}@{each.version}"
        component = {"type": "library", "bom-ref": purl, "name": _name(each), "version": each.version, "purl": purl}
        expression = each.metadata.get("License-Expression")
        yield component | ({"licenses": [{"expression": expression}]} if expression else {})


def document(root: Path, folder: Path) -> dict[str, Any]:
    """The whole bill of materials."""
    components = [*python_packages(folder), *debian_packages(root)]
    [own] = [each for each in components if each["name"] == "spirrow-lexora"]
    components.remove(own)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own | {"type": "application"}},
        "components": components,
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _name(distribution: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()


if __name__ == "__main__":
    print(json.dumps(document(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))

"""What is in a package, as a CycloneDX document: https://cyclonedx.org/docs/1.6/json/."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Wheel(NamedTuple):
    """A wheel that was unpacked: its normalised name and version, its file's name and SHA-256 in hexadecimal."""

    name: str
    version: str
    file: str
    sha256: str

    @property
    def purl(self) -> str:
        """The package URL, which names the file, since each architecture has its own."""
        return f"pkg:pypi/{self.name}@{self.version}?file_name={self.file}"


class Package(NamedTuple):
    """A zip for Lambda: its file's name, size in bytes and SHA-256 in hexadecimal, and the wheels in it."""

    file: str
    size: int
    sha256: str
    wheels: tuple[Wheel, ...]


def document(packages: Sequence[Package], *, version: str) -> dict[str, Any]:
    """
    The document for `packages` of the aggregator's `version`; the same packages give the same document.

    It has no serial number and no time, which the format allows and reproducibility asks for.
    """
    wheels = sorted({wheel for package in packages for wheel in package.wheels})
    ours = f"pkg:pypi/data-aggregator@{version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": ours,
                "name": "data-aggregator",
                "version": version,
                "purl": ours,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [_file(package) for package in packages] + [_library(wheel) for wheel in wheels],
        "dependencies": [
            {"ref": ours, "dependsOn": [package.file for package in packages]},
            *({"ref": package.file, "dependsOn": [wheel.purl for wheel in package.wheels]} for package in packages),
            *({"ref": wheel.purl} for wheel in wheels),
        ],
    }


def _file(package: Package) -> dict[str, Any]:
    return {"type": "file", "bom-ref": package.file, "name": package.file, "hashes": _hashes(package.sha256)}


def _library(wheel: Wheel) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": wheel.purl,
        "name": wheel.name,
        "version": wheel.version,
        "purl": wheel.purl,
        "hashes": _hashes(wheel.sha256),
    }


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]

"""The packages that every plugin may import, with their versions.

On AWS they are the layer ``layers/python-science``, on a developer's machine ``local/requirements.txt``; a
test holds this list, those two files and each other together.
"""

from __future__ import annotations

VERSIONS = {
    "numpy": "2.5.5",
    "pandas": "3.1.1",
    "python-dateutil": "2.9.0.post0",
    "six": "1.17.0",
    "pillow": "13.0.0",
    "pypdf": "7.1.0",
    "soundfile": "0.14.0",
    "cffi": "2.1.1",
    "pycparser": "3.12",
    "typing-extensions": "4.16.0",
}
"""By canonical name. Of Python 3.13, which AWS has."""

OLDER_PYTHON = {11: {"numpy": "2.4.6"}}
"""Where an older Python has another version: its minor number -> those packages."""

LOADED_BEFORE = frozenset({"numpy", "pandas", "python-dateutil", "six"})
"""The runner has imported these before any plugin, so another copy in the archive is never looked at."""

IMPORT_NAMES = {"pil": "pillow", "dateutil": "python-dateutil"}
"""What packages are called in code, where people write that instead of the name of the package."""


def runtime_versions(minor: int) -> dict[str, str]:
    """The packages of the runtime on Python 3.``minor``."""
    return {**VERSIONS, **OLDER_PYTHON.get(minor, {})}

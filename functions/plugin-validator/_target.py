"""What the plugin runs on, and which wheels fit that (PEP 425, PEP 600).

On AWS and on a developer's machine alike, validator and runner have the same interpreter, so what this
process runs on is what the plugin will run on, unless the caller says otherwise.
"""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass

_OLD_MANYLINUX = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_MANYLINUX = re.compile(r"manylinux_(\d{1,3})_(\d{1,3})_(\w+)")
_MACOS = re.compile(r"macosx_\d{1,3}_\d{1,3}_(\w+)")
_ABI3_FROM_MINOR = 2
TAG_CHARS_MAX = 300
"""Of a tag or a set of them; those of real wheels have a hundred."""

_FAT = ("universal2", "universal", "fat64", "fat3", "intel")


@dataclass(frozen=True)
class Target:
    """An interpreter on a machine."""

    minor: int
    """Of Python 3."""
    machine: str
    """x86_64 or aarch64; arm64 on macOS."""
    system: str
    """linux or darwin."""
    glibc: tuple[int, int] | None
    """Version of the C library; None if it is unknown, or another one."""

    @property
    def python(self) -> str:
        """Such as "3.13"."""
        return f"3.{self.minor}"

    @property
    def shown(self) -> str:
        """For messages: what it is called."""
        return f"Python {self.python}, {'macOS' if self.system == 'darwin' else self.system} {self.machine}"

    def marker_variables(self) -> dict[str, str]:
        """The environment that markers of requirements may ask about (PEP 508)."""
        darwin = self.system == "darwin"
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform.python_implementation": "CPython",
            "os_name": "posix",
            "os.name": "posix",
            "sys_platform": self.system,
            "sys.platform": self.system,
            "platform_system": "Darwin" if darwin else "Linux",
            "platform_machine": self.machine,
            "platform.machine": self.machine,
            "platform_release": "",
            "platform_version": "",
            "extra": "",
        }

    def takes(self, tag: str) -> bool:
        """Whether a wheel with this tag can be imported: ``cp313-cp313-manylinux_2_28_x86_64``, sets with
        dots."""
        parts = tag.strip().lower().split("-")
        # A set of tags is a product; one of thousands of parts would be compared for minutes.
        if len(parts) != 3 or len(tag) > TAG_CHARS_MAX:
            return False
        pythons, abis, platforms = (part.split(".") for part in parts)
        return any(self._takes_code(python, abi) for python in pythons for abi in abis) and any(
            self.takes_platform(one) for one in platforms
        )

    def _takes_code(self, python: str, abi: str) -> bool:
        match = re.fullmatch(r"(py|cp)3(\d{0,2})", python)
        if match is None:
            return False
        built_for = None if match.group(2) == "" else int(match.group(2))
        if abi == "none":
            # A version means "from this one on" for pure Python and exactly this one for an interpreter's own wheels.
            if match.group(1) == "cp":
                return built_for == self.minor
            return built_for is None or built_for <= self.minor
        if match.group(1) != "cp" or built_for is None:
            return False
        if abi == "abi3":
            return _ABI3_FROM_MINOR <= built_for <= self.minor
        return abi == f"cp3{self.minor}" and built_for == self.minor

    def takes_platform(self, name: str) -> bool:
        """Whether compiled code of a platform tag can be loaded: ``any``, ``manylinux2014_x86_64``."""
        if name == "any":
            return True
        if self.system == "darwin":
            match = _MACOS.fullmatch(name)
            return match is not None and match.group(1) in (self.machine, *_FAT)
        if name == f"linux_{self.machine}":
            return True
        match = _MANYLINUX.fullmatch(name)
        if match is not None:
            return match.group(3) == self.machine and self._has_glibc(
                (int(match.group(1)), int(match.group(2)))
            )
        old, _, machine = name.partition("_")
        return old in _OLD_MANYLINUX and machine == self.machine and self._has_glibc(_OLD_MANYLINUX[old])

    def _has_glibc(self, wanted: tuple[int, int]) -> bool:
        return self.glibc is None or wanted <= self.glibc

    def pip_options(self) -> str:
        """The options that make pip fetch wheels for this target on any machine."""
        if self.system == "darwin":
            return "--only-binary :all:"
        return (
            f"--only-binary :all: --python-version {self.python} --platform manylinux_2_28_{self.machine} "
            f"--platform manylinux2014_{self.machine}"
        )


def read_target(runtime: dict | None) -> Target:
    """The target that a caller names by ``{"python": "3.13", "machine": "x86_64"}``; left out: this
    process."""
    given = runtime or {}
    python = re.fullmatch(r"3\.(\d{1,2})", given.get("python") or "")
    name, version = platform.libc_ver() if not given.get("python") else ("glibc", "2.34")
    libc = re.match(r"(\d+)\.(\d+)", version)
    system = "darwin" if sys.platform == "darwin" and not given.get("machine") else "linux"
    machine = given.get("machine") or platform.machine()
    return Target(
        int(python.group(1)) if python else sys.version_info.minor,
        "aarch64" if machine == "arm64" and system == "linux" else machine,
        system,
        (int(libc.group(1)), int(libc.group(2))) if name == "glibc" and libc else None,
    )

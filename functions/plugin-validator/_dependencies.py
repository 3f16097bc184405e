"""Decides whether the packages that a manifest names will be there when the plugin runs.

Nothing is ever installed at run time: a package is part of the runtime, or it lies unpacked under
``vendor/``.
"""

from __future__ import annotations

import re

from _findings import Findings

RUNTIME_PACKAGES = frozenset({"numpy", "pandas", "python-dateutil", "six"})
"""What the runner's layer holds (pandas brings the last two)."""

_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[^\]]*\])?\s*(.*)\Z", re.DOTALL)
_NATIVE = re.compile(r"\.(?:cpython-(\d)(\d+)[a-z]*|abi3)(?:-([a-z0-9_]+))?(?:-linux-(?:gnu|musl))?\.so\Z")
_OTHER_SYSTEMS = (".pyd", ".dylib", ".dll")


def check_dependencies(dependencies: list[dict], paths: list[str], findings: Findings) -> list[str]:
    """Reports what is not met; returns the requirement strings as written."""
    vendored = _vendored(paths)
    for entry in dependencies:
        requirement, location = entry["requirement"], entry["location"]
        match = _NAME.match(requirement)
        if match is None or re.search(r"://|^\s*-|^\s*\.", requirement):
            findings.error(
                "bad_dependency",
                location,
                f'dependencies: "{requirement}" is not a package name',
                'write a name such as "numpy", with or without a version',
            )
            continue
        name, rest = canonical(match.group(1)), match.group(3).split(";")[0].strip()
        if name in vendored:
            continue
        if name not in RUNTIME_PACKAGES:
            findings.error(
                "dependency_not_available",
                location,
                f'dependencies: "{match.group(1)}" is not part of the runtime (which has numpy and pandas)',
                f"unpack its wheel into the archive: pip install --target vendor --only-binary :all: '{requirement}'",
            )
        elif "==" in rest or "<" in rest or "~=" in rest:
            findings.warn(
                "version_not_pinned",
                location,
                f'dependencies: "{requirement}": the runtime brings its own {name}, whatever version is asked for',
                "leave the version open, and test against the version that the runtime has",
            )
    return [entry["requirement"] for entry in dependencies]


def check_native_files(paths: list[str], python: str, machine: str, findings: Findings) -> None:
    """Reports compiled modules under vendor/ that the runner's interpreter could not load.

    ``python`` is like "3.13", ``machine`` like "x86_64"; only file names with a tag can be judged.
    """
    for path in paths:
        match = _NATIVE.search(path)
        if match is None and not path.lower().endswith(_OTHER_SYSTEMS):
            continue
        built_for = f"{match.group(1)}.{match.group(2)}" if match and match.group(1) else python
        on = (match.group(3) or machine) if match else "another system"
        if built_for != python or _machine(on) != _machine(machine):
            findings.error(
                "native_file_does_not_fit",
                [path, 1, 1],
                f"{path} was built for another target; the plugin runs on Python {python}, linux {machine}",
                "unpack the wheel for the right target: pip install --target vendor --only-binary :all: "
                f"--python-version {python} --platform manylinux_2_28_{machine} ...",
            )


def _machine(name: str) -> str:
    return "aarch64" if name == "arm64" else name


def canonical(name: str) -> str:
    """The form of a package name in which ``Foo.Bar``, ``foo_bar`` and ``foo-bar`` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _vendored(paths: list[str]) -> set[str]:
    found = set()
    for path in paths:
        parts = path.split("/")
        if parts[0] != "vendor" or len(parts) < 2:
            continue
        top = parts[1]
        if top.endswith(".dist-info"):
            found.add(canonical(top[: -len(".dist-info")].rsplit("-", 1)[0]))
        elif len(parts) > 2 or top.endswith(".py"):
            found.add(canonical(top.removesuffix(".py")))
    return found

"""Decides whether the packages that a manifest names will be there when the plugin runs, in a version that
will do.

Nothing is ever installed at run time: a package is part of the runtime, or it lies unpacked under
``vendor/``.
"""

from __future__ import annotations

import sys

from _findings import Findings
from _requirements import BadRequirement, Requirement, parse_requirement
from _runtime import IMPORT_NAMES, LOADED_BEFORE, runtime_versions
from _target import Target
from _vendored import Vendored
from _versions import fits


def check_dependencies(
    dependencies: list[dict], vendored: Vendored, target: Target, own_image: bool, findings: Findings
) -> list[str]:
    """Reports what is not met; returns the requirement strings as written.

    With an image of its own the plugin has the packages of that image, which cannot be seen from here: then
    only the form of the requirements is checked.
    """
    for entry in dependencies:
        text, location = entry["requirement"], entry["location"]
        try:
            requirement = parse_requirement(text, target)
        except BadRequirement as fault:
            findings.error(
                "bad_dependency",
                location,
                f'dependencies: "{text}": {fault}',
                'write a package name, with or without versions, such as "numpy>=2"',
            )
            continue
        if requirement.applies and not own_image:
            _check(requirement, location, vendored, target, findings)
    return [entry["requirement"] for entry in dependencies]


def _check(
    requirement: Requirement, location: list, vendored: Vendored, target: Target, findings: Findings
) -> None:
    name = requirement.name
    own = runtime_versions(target.minor).get(name)
    package = vendored.distributions.get(name)
    if own is not None and name in LOADED_BEFORE:
        _check_own(requirement, own, location, target, findings)
    elif package is not None and vendored.has_code:
        _check_version(requirement, package.version, location, package.folder, target, findings)
    elif name in vendored.modules:
        _check_version(requirement, None, location, f"vendor/{requirement.written}", target, findings)
    elif own is not None:
        _check_own(requirement, own, location, target, findings)
    else:
        _not_there(requirement, location, target, findings)


def _check_own(
    requirement: Requirement, own: str, location: list, target: Target, findings: Findings
) -> None:
    if fits(requirement.specifiers, own):
        return
    parts = own.split(".")
    range_of_it = f'"{requirement.written}>={parts[0]}.{parts[1]},<{int(parts[0]) + 1}"'
    instead = (
        "; another version cannot be brought along, since the runner itself needs this one"
        if requirement.name in LOADED_BEFORE
        else f", or bring the other version: {_install(requirement, target)}"
    )
    findings.error(
        "dependency_version",
        location,
        f'dependencies: "{requirement.written}{requirement.versions}": the runtime has {requirement.name} {own} '
        f"(Python {target.python})",
        f'write "{requirement.written}" or {range_of_it}{instead}',
    )


def _check_version(
    requirement: Requirement,
    version: str | None,
    location: list,
    place: str,
    target: Target,
    findings: Findings,
) -> None:
    if not requirement.specifiers:
        return
    outcome = None if version is None else fits(requirement.specifiers, version)
    if outcome is None:
        findings.warn(
            "version_unknown",
            location,
            f'dependencies: "{requirement.written}{requirement.versions}": {place} does not say which version it is',
            f"keep the .dist-info folder that comes with the package: {_install(requirement, target)}",
        )
    elif not outcome:
        findings.error(
            "dependency_version",
            location,
            f'dependencies: "{requirement.written}{requirement.versions}": {place} is {version}',
            f"bring a version that fits: {_install(requirement, target)}",
        )


def _not_there(requirement: Requirement, location: list, target: Target, findings: Findings) -> None:
    if requirement.written in sys.stdlib_module_names:
        fix = f'remove "{requirement.written}": it is part of Python and always there'
    elif requirement.name in IMPORT_NAMES:
        fix = f'write "{IMPORT_NAMES[requirement.name]}", the name of its package'
    else:
        fix = f"unpack its wheel into the archive: {_install(requirement, target)}"
    has = ", ".join(sorted(runtime_versions(target.minor)))
    findings.error(
        "dependency_not_available",
        location,
        f'dependencies: "{requirement.written}" is neither under vendor/ nor part of the runtime (which has {has})',
        fix,
    )


def _install(requirement: Requirement, target: Target) -> str:
    wanted = f"{requirement.written}{requirement.versions}"
    return f"pip install --upgrade --target vendor {target.pip_options()} '{wanted}'"

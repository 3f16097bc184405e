"""What lies under ``vendor/``: unpacked packages by their ``*.dist-info``, bare modules, compiled files, and
packed packages, which nobody will unpack.

Confirm keeps exactly the bytes that were uploaded, named by their hash, and the runner imports from them as
they lie. So a wheel has to be unpacked by whoever packs the archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from _findings import Findings
from _requirements import BadRequirement, canonical, parse_requirement
from _runtime import LOADED_BEFORE, runtime_versions
from _target import Target
from _versions import fits

TAGS_MAX = 200
NEEDS_MAX = 2_000
"""Requirements of vendored packages that are looked at, in all."""

HEADER_LINES_MAX = 2_000
LISTED_MAX = 20
"""Findings of one kind about one archive; a package for another system has hundreds of files."""

_NATIVE = re.compile(r"\.(?:cpython-3(\d{1,2})([a-z]*)|abi3)(?:-([a-z0-9_-]+))?\.so\Z")
_OTHER_SYSTEMS = (".pyd", ".dll")
_PACKED = (".whl", ".egg", ".tar.gz", ".zip")
_WHEEL_NAME = re.compile(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+-[^-]+-[^-]+)\.whl")


@dataclass(frozen=True)
class Distribution:
    """One unpacked package."""

    name: str
    """Canonical."""
    version: str | None
    folder: str
    """``vendor/six-1.17.0.dist-info``"""
    tags: list[tuple[str, int]] = field(default_factory=list)
    """What it was built for, each with its line in WHEEL; none if there is no WHEEL."""
    requires: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Vendored:
    """What the archive brings along."""

    distributions: dict[str, Distribution]
    """By canonical name."""
    modules: set[str]
    """Canonical names of folders and modules, whether or not a dist-info names them."""
    has_code: bool


def read_vendored(paths: list[str], texts: dict[str, bytes], target: Target, findings: Findings) -> Vendored:
    """Reads and checks ``vendor/``: every package once, built for the target, unpacked."""
    folders = dict.fromkeys(path.split("/")[1] for path in paths if path.startswith("vendor/"))
    distributions: dict[str, Distribution] = {}
    for name in folders:
        if not name.endswith(".dist-info"):
            continue
        one = _distribution(f"vendor/{name}", texts)
        other = distributions.setdefault(one.name, one)
        if other is not one:
            findings.error(
                "vendored_twice",
                [f"{one.folder}/METADATA", 1, 1],
                f"{one.folder} and {other.folder} are the same package",
                f"empty vendor/ and install once: pip install --target vendor {target.pip_options()} ...",
            )
    modules = {
        canonical(name.removesuffix(".py")) for name in folders if "." not in name or name.endswith(".py")
    }
    _check_tags(distributions, target, findings)
    _check_not_used(distributions, target, findings)
    _check_packed(paths, target, findings)
    _check_place(paths, findings)
    has_code = any(
        path.startswith("vendor/") and ".dist-info/" not in path and not path.endswith(_PACKED)
        for path in paths
    )
    vendored = Vendored(distributions, modules, has_code)
    _check_needs(vendored, target, findings)
    return vendored


def _distribution(folder: str, texts: dict[str, bytes]) -> Distribution:
    stem = folder.removeprefix("vendor/").removesuffix(".dist-info")
    name, _, version = stem.partition("-")
    metadata = _headers(texts.get(f"{folder}/METADATA", b""))
    for key, value, _ in metadata:
        if key == "name" and value:
            name = value
        elif key == "version" and value:
            version = value
    wheel = _headers(texts.get(f"{folder}/WHEEL", b""))
    return Distribution(
        canonical(name),
        version or None,
        folder,
        [(value, line) for key, value, line in wheel if key == "tag"][:TAGS_MAX],
        [value for key, value, _ in metadata if key == "requires-dist"],
    )


def _headers(content: bytes) -> list[tuple[str, str, int]]:
    """The headers before the first empty line: lower-case name, value, line."""
    found = []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines()[:HEADER_LINES_MAX], 1):
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            found.append((key.strip().lower(), value.strip(), number))
    return found


def _check_tags(distributions: dict[str, Distribution], target: Target, findings: Findings) -> None:
    for one in distributions.values():
        if not one.tags or any(target.takes(tag) for tag, _ in one.tags):
            continue
        tag, line = one.tags[0]
        more = f" and {len(one.tags) - 1} more" if len(one.tags) > 1 else ""
        version = "" if one.version is None else f"=={one.version}"
        findings.error(
            "wheel_does_not_fit",
            [f"{one.folder}/WHEEL", line, 1],
            f"vendor/ has {one.name} built for {tag}{more}; the plugin runs on {target.shown}",
            f"vendor the wheel for the runner: pip install --upgrade --target vendor {target.pip_options()} "
            f"'{one.name}{version}'",
        )


def _check_not_used(distributions: dict[str, Distribution], target: Target, findings: Findings) -> None:
    own = runtime_versions(target.minor)
    for name, one in distributions.items():
        if name in LOADED_BEFORE:
            findings.warn(
                "vendored_not_used",
                [f"{one.folder}/METADATA", 1, 1],
                f"vendor/ has {name} {one.version or ''}, which is not used: the runtime has loaded its own {own[name]} "
                "before the plugin",
                f"leave {name} out of vendor/, or install by: pip install --no-deps --target vendor ...",
            )


def _check_packed(paths: list[str], target: Target, findings: Findings) -> None:
    packed = [path for path in paths if path.lower().endswith(_PACKED)]
    for path in [path for path in packed if path.startswith("vendor/")][:LISTED_MAX]:
        match = _WHEEL_NAME.fullmatch(path.rsplit("/", 1)[1])
        if not path.endswith(".whl"):
            fix = f"remove it and unpack a wheel instead: pip install --target vendor {target.pip_options()} ..."
        elif match is not None and not target.takes(match.group(3)):
            fix = (
                f"it was built for {match.group(3)} and would not fit; replace it: rm {path} && pip install "
                f"--target vendor {target.pip_options()} '{match.group(1)}=={match.group(2)}'"
            )
        else:
            fix = f"unpack it in the plugin's folder: python -m zipfile -e {path} vendor && rm {path}"
        findings.error(
            "package_not_unpacked",
            [path, 1, 1],
            f"{path} is packed; plugins run from the archive as it is, and nothing is installed",
            fix,
        )
    for path in [path for path in packed if path.endswith(".whl") and not path.startswith("vendor/")][
        :LISTED_MAX
    ]:
        findings.warn(
            "package_not_unpacked",
            [path, 1, 1],
            f"{path} has no effect: wheels are neither installed nor imported",
            "unpack it into vendor/, or remove it",
        )


def _check_place(paths: list[str], findings: Findings) -> None:
    tops = dict.fromkeys(path.split("/")[0] for path in paths if path.split("/")[0].endswith(".dist-info"))
    for name in list(tops)[:LISTED_MAX]:
        findings.warn(
            "package_not_vendored",
            [f"{name}/METADATA", 1, 1],
            f"{name} lies at the root of the plugin, so its code counts as the plugin's own",
            "install packages into vendor/: pip install --target vendor ...",
        )


def _check_needs(vendored: Vendored, target: Target, findings: Findings) -> None:
    """Warns of packages that vendored ones name and that are nowhere; whether they are needed only a run can
    tell."""
    own = runtime_versions(target.minor)
    listed = looked_at = 0
    for one in vendored.distributions.values():
        for text in one.requires:
            looked_at += 1
            if listed >= LISTED_MAX or looked_at > NEEDS_MAX:
                return
            if "extra" in text.partition(";")[2]:
                continue
            try:
                requirement = parse_requirement(text, target)
            except BadRequirement:
                # What the package says of itself is its maker's business; it only cannot be used here.
                continue
            name = requirement.name
            if not requirement.applies or name in vendored.modules:
                continue
            there = vendored.distributions.get(name)
            version = own.get(name) if there is None or name in LOADED_BEFORE else there.version
            if (version is None and there is None) or (
                version is not None and fits(requirement.specifiers, version) is False
            ):
                listed += 1
                found = (
                    "which is neither there nor in the runtime"
                    if version is None
                    else f"and there is {version}"
                )
                findings.warn(
                    "vendored_needs_more",
                    [f"{one.folder}/METADATA", 1, 1],
                    f"{one.name} wants {requirement.written}{requirement.versions}, {found}",
                    f"pip install --target vendor {target.pip_options()} "
                    f"'{requirement.written}{requirement.versions}', unless the plugin gets by without it",
                )


def check_native_files(paths: list[str], target: Target, findings: Findings) -> None:
    """Reports compiled modules that the runner's interpreter could not load; only names with a tag can be
    judged."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        reason = _misfit(path, target)
        if reason is not None:
            grouped.setdefault(("/".join(path.split("/")[:2]), reason), []).append(path)
    for (_, reason), group in list(grouped.items())[:LISTED_MAX]:
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        findings.error(
            "native_file_does_not_fit",
            [group[0], 1, 1],
            f"{group[0]}{more} was built for {reason}; the plugin runs on {target.shown}",
            f"unpack the wheel for the runner: pip install --upgrade --target vendor {target.pip_options()} ...",
        )


def _misfit(path: str, target: Target) -> str | None:
    """What a compiled module was built for, if that is something else."""
    lower = path.lower()
    if lower.endswith(_OTHER_SYSTEMS):
        return "Windows"
    if lower.endswith(".dylib"):
        return None if target.system == "darwin" else "macOS"
    match = _NATIVE.search(path)
    if match is None:
        return None
    minor, flags, system = match.groups()
    if minor is not None and (int(minor) != target.minor or flags):
        return f"Python 3.{minor}{flags}"
    fitting = "darwin" if target.system == "darwin" else f"{target.machine}-linux-gnu"
    return None if system is None or system == fitting else system

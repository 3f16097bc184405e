"""Lambda entry of the plugin validator: reads a plugin's manifest and code without running any of it.

It needs no network, no file and no AWS call; the structure of the zip is checked before, by its caller.
Event::

    {"name": "text_embed", "version": "1.0.0",            # as the upload was created
     "files": [{"path": "manifest.py", "content_base64": "..."}],   # every .py, path relative to the plugin's
                                                        # root; METADATA and WHEEL of vendored packages
     "other_files": ["models/w.npz"],                   # every other path
     "allow": {"egress": false, "container_images": false, "memory_classes": ["small", "standard", "large"]},
                                                        # optional: what this namespace's plugins may have
     "runtime": {"python": "3.13", "machine": "x86_64"}}  # optional: what the runner runs on; default: as
                                                        # this process

Answer::

    {"ok": bool, "errors": [finding], "warnings": [finding], "manifest": {...} | null, "has_realtime": bool,
     "entry": "build_steps" | "extract" | null}

A finding is ``{"type", "location": [path, line, column], "message", "fix"}``. ``manifest`` is null unless
``ok``.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import time
from dataclasses import dataclass, field
from typing import Any

from _dependencies import check_dependencies
from _findings import Findings
from _manifest import MEMORY_CLASSES, Allowed, read_manifest
from _scan import scan
from _source import MANIFEST_BYTES_MAX, SOURCE_BYTES_MAX, Source, parse
from _target import read_target
from _vendored import check_native_files, read_vendored

SCAN_SECONDS_MAX = 12.0
MANIFEST_JSON_BYTES_MAX = 64 * 1024
"""The normalised manifest is kept in the plugin's table item, which has to stay below 100 kB."""

_ENTRIES = ("build_steps", "extract")


def handler(event: dict, context: Any = None) -> dict:
    """Validates one plugin. Raises ValueError for an event of the wrong shape; never for what is in the
    files."""
    name, version, files, others = _read_event(event)
    allowed, target = _read_allow(event.get("allow")), read_target(event.get("runtime"))
    findings = Findings()
    decoded = _decode(files)
    contents = {path: content for path, content in decoded.items() if path.endswith(".py")}
    texts = {path: content for path, content in decoded.items() if path not in contents}
    paths = [*decoded, *others]
    parsed = _parse_and_scan(contents, findings)
    vendored = read_vendored(paths, texts, target, findings)
    manifest = _manifest(contents, paths, parsed.manifest, name, version, allowed, findings)
    if manifest is not None:
        own_image = manifest["container_image"] is not None
        manifest["dependencies"] = check_dependencies(
            manifest["dependencies"], vendored, target, own_image, findings
        )
        _check_secrets(parsed.secrets, manifest["secrets"], findings)
        _check_size(manifest, findings)
    entry = _entry(contents, paths, parsed.names, findings)
    has_realtime = "realtime.py" in contents
    if has_realtime:
        _check_realtime(parsed.names, findings)
    check_native_files(others, target, findings)
    findings.close()
    ok = not findings.errors
    return {
        "ok": ok,
        "errors": findings.errors,
        "warnings": findings.warnings,
        "manifest": manifest if ok else None,
        "has_realtime": has_realtime,
        "entry": entry,
    }


def _read_event(event: dict) -> tuple[str, str, list[dict], list[str]]:
    name, version = event.get("name"), event.get("version")
    files, others = event.get("files"), event.get("other_files", [])
    if not isinstance(name, str) or not isinstance(version, str):
        raise ValueError("the event needs the strings name and version")
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and isinstance(f.get("path"), str) and isinstance(f.get("content_base64"), str)
        for f in files
    ):
        raise ValueError("the event needs files: a list of {path, content_base64}")
    if not isinstance(others, list) or not all(isinstance(p, str) for p in others):
        raise ValueError("other_files must be a list of paths")
    return name, version, files, others


def _read_allow(allow: Any) -> Allowed:
    if allow is None:
        return Allowed()
    classes = allow.get("memory_classes", list(MEMORY_CLASSES)) if isinstance(allow, dict) else None
    flags = [allow.get(key, False) for key in ("egress", "container_images")] if classes is not None else []
    if (
        not isinstance(classes, list)
        or not all(isinstance(one, str) and one in MEMORY_CLASSES for one in classes)
        or not all(isinstance(flag, bool) for flag in flags)
    ):
        raise ValueError(
            'allow must be {"egress": bool, "container_images": bool, "memory_classes": [small, standard, large]}'
        )
    return Allowed(flags[0], flags[1], tuple(classes))


def _decode(files: list[dict]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for entry in files:
        try:
            contents[entry["path"]] = base64.b64decode(entry["content_base64"], validate=True)
        except binascii.Error as fault:
            raise ValueError(f"files: {entry['path']} is not base64: {fault}") from None
    return contents


@dataclass
class _Parsed:
    """What is kept of the files once they were scanned. A tree is a hundred times as large as its source, so only
    the manifest's is."""

    manifest: Source | None = None
    names: dict[str, set[str]] = field(default_factory=dict)
    """Of each file that could be read: what is bound at its top level."""
    secrets: list[tuple[str, list]] = field(default_factory=list)
    """The secrets that the plugin's own code asks for, each with its place."""


def _parse_and_scan(contents: dict[str, bytes], findings: Findings) -> _Parsed:
    """Parses and scans every file."""
    kept = _Parsed()
    give_up_at = time.monotonic() + SCAN_SECONDS_MAX
    # The plugin's own files first: should the time run out, vendored packages are what is missed.
    for path in sorted(contents, key=lambda p: (p.startswith("vendor/"), "/" in p, p)):
        vendored = path.startswith("vendor/")
        if time.monotonic() > give_up_at:
            findings.error(
                "scan_too_long",
                [path, 1, 1],
                f"the code could not be read within {SCAN_SECONDS_MAX:.0f} s",
                "leave out packages that the plugin does not import",
            )
            break
        _scan_file(path, contents[path], vendored, kept, findings)
    return kept


def _scan_file(path: str, content: bytes, vendored: bool, kept: _Parsed, findings: Findings) -> None:
    """Parses and scans one file. In a function of its own, so that its tree is gone before the next one is
    made."""
    inner = Findings() if vendored else findings
    source = parse(path, content, inner, MANIFEST_BYTES_MAX if path == "manifest.py" else SOURCE_BYTES_MAX)
    if vendored:
        # Published packages carry test files for other Pythons; a broken one shows when it is imported.
        for fault in inner.errors:
            findings.warn(fault["type"], fault["location"], fault["message"], fault["fix"])
    if source is None:
        return
    try:
        secrets = scan(source, findings, vendored)
        if not vendored:
            kept.secrets += secrets
    except RecursionError:
        findings.error(
            "source_too_deep",
            [path, 1, 1],
            f"{path} nests expressions too deeply to be read",
            "split the long expression over several statements",
        )
    if path == "manifest.py":
        kept.manifest = source
    elif path in ("pipeline.py", "realtime.py"):
        kept.names[path] = _top_level_names(source.tree)


def _manifest(
    contents: dict[str, bytes],
    paths: list[str],
    source: Source | None,
    name: str,
    version: str,
    allowed: Allowed,
    findings: Findings,
) -> dict | None:
    if "manifest.py" not in contents:
        _missing_file("manifest.py", paths, findings)
        return None
    if source is None:
        return None
    manifest = read_manifest(source, name, version, allowed, findings)
    code = b"\n".join(content for path, content in contents.items() if path != "manifest.py")
    for feature in manifest["features"]:
        column = feature.get("feature_name")
        if column is not None and column.encode() not in code:
            findings.warn(
                "feature_not_in_code",
                ["pipeline.py", 1, 1],
                f'no code of the plugin mentions the column "{column}"',
                f'a step must assign the vectors to batch["{column}"]',
            )
    return manifest


def _check_secrets(asked: list[tuple[str, list]], named: list[str], findings: Findings) -> None:
    for name, location in asked:
        if name not in named:
            findings.warn(
                "secret_not_named",
                location,
                f'{location[0]} asks for the secret "{name}", which manifest.py does not name, so it is not given',
                f'add "{name}" to secrets in manifest.py',
            )


def _check_size(manifest: dict, findings: Findings) -> None:
    if len(json.dumps(manifest)) > MANIFEST_JSON_BYTES_MAX:
        findings.error(
            "manifest_too_large",
            ["manifest.py", 1, 1],
            f"the manifest takes more than {MANIFEST_JSON_BYTES_MAX} bytes as JSON",
            "shorten output_schema, input_mappings and description",
        )


def _entry(
    contents: dict[str, bytes], paths: list[str], names: dict[str, set[str]], findings: Findings
) -> str | None:
    if "pipeline.py" not in contents:
        _missing_file("pipeline.py", paths, findings)
        return None
    defined = names.get("pipeline.py")
    if defined is None:
        return None
    for entry in _ENTRIES:
        if entry in defined:
            return entry
    findings.error(
        "entry_missing",
        ["pipeline.py", 1, 1],
        "pipeline.py defines neither build_steps nor extract at its top level",
        "define build_steps(extractor_request, container, base_steps, dataset_size, content_flags)",
    )
    return None


def _check_realtime(names: dict[str, set[str]], findings: Findings) -> None:
    defined = names.get("realtime.py")
    if defined is None:
        return
    if "get_inference_service" not in defined and not any(
        n.endswith("InferenceService") and n != "BaseInferenceService" for n in defined
    ):
        findings.error(
            "realtime_entry_missing",
            ["realtime.py", 1, 1],
            "realtime.py defines neither a class whose name ends in InferenceService nor get_inference_service",
            "define class InferenceService with run_inference(self, inputs, parameters), or remove realtime.py",
        )


def _missing_file(name: str, paths: list[str], findings: Findings) -> None:
    elsewhere = [p for p in paths if p.endswith("/" + name) and not p.startswith("vendor/")]
    hint = f" (there is {elsewhere[0]})" if elsewhere else ""
    findings.error(
        "missing_file",
        [name, 1, 1],
        f"{name} is missing from the plugin's root{hint}",
        "put manifest.py and pipeline.py side by side, at the top of the archive or in its single top folder",
    )


def _top_level_names(tree: ast.Module) -> set[str]:
    """Names bound at the top level of a module, including inside its top-level if, try and with blocks."""
    names: set[str] = set()
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name.split(".")[0] for alias in statement.names)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names.update(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                waiting += getattr(statement, part, [])
            for caught in getattr(statement, "handlers", []):
                waiting += caught.body
    return names

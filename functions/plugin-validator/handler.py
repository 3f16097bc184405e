"""Lambda entry of the plugin validator: reads a plugin's manifest and code without running any of it.

It needs no network, no file and no AWS call; the structure of the zip is checked before, by its caller.
Event::

    {"name": "text_embed", "version": "1.0.0",            # as the upload was created
     "files": [{"path": "manifest.py", "content_base64": "..."}],   # every .py, path relative to the plugin's
     root "other_files": ["models/w.npz"],                     # every other path
     "runtime": {"python": "3.13", "machine": "x86_64"}}  # optional: what the runner runs on; default: as
     this process

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
import platform
import sys
import time
from typing import Any

from _dependencies import check_dependencies, check_native_files
from _findings import Findings
from _manifest import read_manifest
from _scan import scan
from _source import MANIFEST_BYTES_MAX, SOURCE_BYTES_MAX, Source, parse

SCAN_SECONDS_MAX = 12.0
MANIFEST_JSON_BYTES_MAX = 64 * 1024
"""The normalised manifest is kept in the plugin's table item, which has to stay below 100 kB."""

_ENTRIES = ("build_steps", "extract")


def handler(event: dict, context: Any = None) -> dict:
    """Validates one plugin. Raises ValueError for an event of the wrong shape; never for what is in the
    files."""
    name, version, files, others = _read_event(event)
    findings = Findings()
    contents = _decode(files, findings)
    paths = [*contents, *others]
    sources = _parse_and_scan(contents, findings)
    manifest = _manifest(contents, paths, sources, name, version, findings)
    entry = _entry(contents, paths, sources, findings)
    has_realtime = "realtime.py" in contents
    if has_realtime:
        _check_realtime(sources, findings)
    runtime = event.get("runtime") or {}
    check_native_files(
        others,
        runtime.get("python") or f"{sys.version_info.major}.{sys.version_info.minor}",
        runtime.get("machine") or platform.machine(),
        findings,
    )
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


def _decode(files: list[dict], findings: Findings) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for entry in files:
        try:
            contents[entry["path"]] = base64.b64decode(entry["content_base64"], validate=True)
        except binascii.Error as fault:
            raise ValueError(f"files: {entry['path']} is not base64: {fault}") from None
    return contents


def _parse_and_scan(contents: dict[str, bytes], findings: Findings) -> dict[str, Source]:
    """Parses and scans every file; returns the trees of the three that have rules of their own."""
    kept: dict[str, Source] = {}
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
        inner = Findings() if vendored else findings
        source = parse(
            path, contents[path], inner, MANIFEST_BYTES_MAX if path == "manifest.py" else SOURCE_BYTES_MAX
        )
        if vendored:
            # Published packages carry test files for other Pythons; a broken one shows when it is imported.
            for fault in inner.errors:
                findings.warn(fault["type"], fault["location"], fault["message"], fault["fix"])
        if source is None:
            continue
        try:
            scan(source, findings, vendored)
        except RecursionError:
            findings.error(
                "source_too_deep",
                [path, 1, 1],
                f"{path} nests expressions too deeply to be read",
                "split the long expression over several statements",
            )
        if "/" not in path:
            kept[path] = source
    return kept


def _manifest(
    contents: dict[str, bytes],
    paths: list[str],
    sources: dict[str, Source],
    name: str,
    version: str,
    findings: Findings,
) -> dict | None:
    if "manifest.py" not in contents:
        _missing_file("manifest.py", paths, findings)
        return None
    source = sources.get("manifest.py")
    if source is None:
        return None
    manifest = read_manifest(source, name, version, findings)
    manifest["dependencies"] = check_dependencies(manifest["dependencies"], paths, findings)
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
    if len(json.dumps(manifest)) > MANIFEST_JSON_BYTES_MAX:
        findings.error(
            "manifest_too_large",
            ["manifest.py", 1, 1],
            f"the manifest takes more than {MANIFEST_JSON_BYTES_MAX} bytes as JSON",
            "shorten output_schema, input_mappings and description",
        )
    return manifest


def _entry(
    contents: dict[str, bytes], paths: list[str], sources: dict[str, Source], findings: Findings
) -> str | None:
    if "pipeline.py" not in contents:
        _missing_file("pipeline.py", paths, findings)
        return None
    source = sources.get("pipeline.py")
    if source is None:
        return None
    defined = _top_level_names(source.tree)
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


def _check_realtime(sources: dict[str, Source], findings: Findings) -> None:
    source = sources.get("realtime.py")
    if source is None:
        return
    names = _top_level_names(source.tree)
    if "get_inference_service" not in names and not any(
        n.endswith("InferenceService") and n != "BaseInferenceService" for n in names
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

"""The rules of manifest.py: which names it may assign, what their values must be, and how they are
normalised.

Only top-level assignments are read. Both styles are understood: one variable per key, and a ``metadata =
{...}`` dict beside classes (the classes are ignored). All faults are reported at once, each with its place,
the key that is wrong and the key or value to write instead.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from typing import Any

from _findings import Findings
from _literals import Evaluator, Literal, NotLiteral
from _source import Source

NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{2,63}\Z")
FEATURE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,99}\Z")
VERSION = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?\Z", re.ASCII)
FEATURES_MAX = 8
DIMS_MAX = 4096
METRICS = ("cosine", "dot", "euclid")
BATCH_SIZE_MAX = 1000
CONCURRENCY_MAX = 50
MEMORY_CLASSES = {"small": 256, "standard": 1024, "large": 2048}
"""Megabytes that a plugin may take beyond what the runner itself needs."""

SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")
SECRETS_MAX = 32
_REPOSITORY = r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*"
IMAGE = re.compile(
    r"\d{12}\.dkr\.ecr\.[a-z]{2}(?:-[a-z]+)+-\d\.amazonaws\.com/"
    rf"(?P<repository>{_REPOSITORY})(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}|(?P<digest>@sha256:[0-9a-f]{{64}}))?\Z",
    re.ASCII,
)
"""A repository of an account in Amazon ECR: Lambda runs images from nowhere else."""
IMAGE_CHARS_MAX = 500
REPOSITORY_CHARS_MAX = 256
DESCRIPTION_CHARS_MAX = 2000

NEEDED = ("feature_extractor_name", "version", "features")
DECIDING = (*NEEDED, "dependencies", "compute_profile", "container_image", "secrets")
"""Keys that the warehouse acts on: one of these that cannot be read is an error, another one is a warning."""

KNOWN = (
    *DECIDING,
    "description",
    "output_schema",
    "input_mappings",
    "tier",
    "tier_label",
    "supported_input_types",
    "category",
    "inference_type",
    "metadata",
)
OPTIONAL = tuple(key for key in KNOWN if key not in NEEDED and key != "metadata")
OTHER_NAMES = {
    "feature_extractor_name": ("name", "plugin_name", "extractor_name"),
    "version": ("plugin_version", "__version__"),
}
"""What people write for a needed key, too far from it in spelling."""
NAME_CHARS_MAX = 64
COMPARED_MAX = 200
"""Comparing spellings is slow, and a manifest may assign tens of thousands of names."""

CLASS_STYLE = ("input_schema", "output_schema", "parameter_schema")
"""In the class style these are models, which are ignored."""

FEATURE_KEYS = ("feature_type", "feature_name", "embedding_dim", "distance_metric")
FEATURE_KEY_HINTS = {
    "name": "feature_name",
    "feature": "feature_name",
    "type": "feature_type",
    "kind": "feature_type",
    "dimensions": "embedding_dim",
    "dimension": "embedding_dim",
    "dims": "embedding_dim",
    "dim": "embedding_dim",
    "distance": "distance_metric",
    "metric": "distance_metric",
    "similarity": "distance_metric",
}
FEATURE_EXTRAS = ("description",)
METRIC_HINTS = {
    "euclidean": "euclid",
    "l2": "euclid",
    "cos": "cosine",
    "cosine_similarity": "cosine",
    "dot_product": "dot",
    "dotproduct": "dot",
    "inner_product": "dot",
    "ip": "dot",
}
INPUT_COLUMNS = (
    "data",
    "document_id",
    "object_id",
    "blob_id",
    "blob_property",
    "blob_type",
    "collection_id",
    "feature_extractor_id",
    "mime_type",
    "size_bytes",
    "local_path",
)


@dataclass(frozen=True)
class Allowed:
    """What the stage and the namespace's plan give to plugins beyond the runtime that every one has."""

    egress: bool | None = None
    """Whether plugins that ask for it get a network; None: nobody said, so it is only remarked upon."""
    container_images: bool = False
    memory_classes: tuple[str, ...] = tuple(MEMORY_CLASSES)


def read_manifest(
    source: Source, upload_name: str, upload_version: str, allowed: Allowed, findings: Findings
) -> dict:
    """Reads and checks a manifest. Returns what could be normalised; whether it counts is told by the
    findings."""
    return _Manifest(source, allowed, findings).read(upload_name, upload_version)


def normalise_version(text: str) -> str | None:
    """``v1`` and ``1.0`` become ``1.0.0``; None if it is no version of up to three numbers."""
    match = VERSION.match(text)
    return None if match is None else ".".join(str(int(part or 0)) for part in match.groups())


class _Manifest:
    def __init__(self, source: Source, allowed: Allowed, findings: Findings) -> None:
        self.source = source
        self.allowed = allowed
        self.findings = findings
        self.evaluator = Evaluator()
        self.names = self.evaluator.names
        self.unread: dict[str, NotLiteral] = {}
        self.classes: set[str] = set()

    # -- assignments
    # ---------------------------------------------------------------------------------------------

    def read(self, upload_name: str, upload_version: str) -> dict:
        """Collects the assignments, then applies the rules."""
        for statement in self.source.tree.body:
            self._statement(statement)
        self._spread_metadata()
        for key, fault in self.unread.items():
            self._unread(key, fault)
        self._check_spelling()
        return {
            "feature_extractor_name": self._name(upload_name),
            "version": self._version(upload_version),
            "description": self._description(),
            "features": (features := self._features()),
            "output_schema": self._output_schema(features),
            "input_mappings": self._input_mappings(),
            "dependencies": self._dependencies(),
            "compute_profile": self._compute_profile(),
            "container_image": self._container_image(),
            "secrets": self._secrets(),
            "tier": self._tier(),
            "tier_label": self._optional_text("tier_label"),
            "supported_input_types": self._texts("supported_input_types"),
        }

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    self._assign(target.id, statement.value)
                else:
                    self._elsewhere(target, "assign one name per line")
        elif isinstance(statement, ast.AnnAssign):
            if isinstance(statement.target, ast.Name) and statement.value is not None:
                self._assign(statement.target.id, statement.value)
        elif isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            self.classes.add(statement.name)
        elif not isinstance(statement, (ast.Import, ast.ImportFrom, ast.Pass)):
            # An `if`, a loop, `features += ...`, `features.append(...)`: what it does is not followed.
            self._elsewhere(statement, "assign the whole value once, at the top level")

    def _assign(self, name: str, value: ast.expr) -> None:
        # A later assignment replaces an earlier one, as it does when Python runs the file.
        self.names.pop(name, None)
        self.unread.pop(name, None)
        if name in CLASS_STYLE and isinstance(value, ast.Name) and value.id in self.classes:
            return
        try:
            self.names[name] = self.evaluator.evaluate(value)
        except NotLiteral as fault:
            self.unread[name] = fault

    def _elsewhere(self, statement: ast.AST, fix: str) -> None:
        for node in ast.walk(statement):
            name = node
            if isinstance(node, ast.Attribute):
                # `features.append(...)`; merely loading a name, as in `print(version)`, is harmless.
                name = node.value
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                # `features[0]["embedding_dim"] = 256`
                while isinstance(name, (ast.Subscript, ast.Attribute)):
                    name = name.value
            elif not (isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del))):
                continue
            if isinstance(name, ast.Name) and name.id in KNOWN:
                self.names.pop(name.id, None)
                self.unread[name.id] = NotLiteral(name, "not_a_literal", "it is set or changed by code", fix)

    def _spread_metadata(self) -> None:
        metadata = self.names.get("metadata")
        if metadata is None or not isinstance(metadata.value, dict):
            return
        for key, (literal, _) in metadata.entries.items():
            if key in KNOWN and key != "metadata" and key not in self.names and key not in self.unread:
                self.names[key] = literal

    def _unread(self, key: str, fault: NotLiteral) -> None:
        line = getattr(fault.node, "lineno", 1)
        message = f"{key}: {fault.reason} (line {line})"
        if key in DECIDING or (key == "metadata" and not all(k in self.names for k in NEEDED)):
            self.findings.error(fault.kind, self.source.at(fault.node), message, fault.fix)
        elif key in KNOWN or key in CLASS_STYLE:
            self.findings.warn(
                fault.kind, self.source.at(fault.node), message + "; it is left out", fault.fix
            )

    # -- reports
    # -------------------------------------------------------------------------------------------------

    def _wrong(self, kind: str, literal: Literal, message: str, fix: str) -> None:
        self.findings.error(kind, self.source.at(literal.node), message, fix)

    def _strangers(self) -> list[str]:
        """Assigned names that are no keys, as many as are compared with the keys that are."""
        return [n for n in self.names if n not in KNOWN and len(n) <= NAME_CHARS_MAX][:COMPARED_MAX]

    def _check_spelling(self) -> None:
        """A misspelt key that may be left out would be left out without a word."""
        for name in self._strangers():
            near = difflib.get_close_matches(name, OPTIONAL, 1, 0.85)
            if near and near[0] not in self.names:
                self.findings.warn(
                    "unknown_key",
                    self.source.at(self.names[name].node),
                    f'"{name}" is no key of a manifest and has no effect',
                    f'if "{near[0]}" is meant, write that',
                )

    def _missing(self, key: str, fix: str) -> None:
        if key in self.unread or "metadata" in self.unread:
            return
        other = [name for name in OTHER_NAMES.get(key, ()) if name in self.names]
        near = difflib.get_close_matches(key, self._strangers(), 1, 0.75) or other
        hint = f' (did you mean this by "{near[0]}"?)' if near else ""
        where = self.source.at(self.names[near[0]].node) if near else [self.source.path, 1, 1]
        self.findings.error("missing_key", where, f"{key} is missing{hint}", fix)

    # -- rules
    # ---------------------------------------------------------------------------------------------------

    def _name(self, upload_name: str) -> str | None:
        literal = self.names.get("feature_extractor_name")
        if literal is None:
            self._missing("feature_extractor_name", f'add feature_extractor_name = "{upload_name}"')
            return None
        value = literal.value
        if not isinstance(value, str) or not NAME.match(value):
            self._wrong(
                "bad_name",
                literal,
                f"feature_extractor_name: got {_show(value)}",
                "a letter, then letters, digits and underscores, 3 to 64 characters in all",
            )
            return None
        if value != upload_name:
            self._wrong(
                "name_mismatch",
                literal,
                f'feature_extractor_name is "{value}", but the upload was created for "{upload_name}"',
                f'write feature_extractor_name = "{upload_name}", or create the upload with name "{value}"',
            )
        return value

    def _version(self, upload_version: str) -> str | None:
        literal = self.names.get("version")
        if literal is None:
            self._missing("version", f'add version = "{upload_version}"')
            return None
        version = normalise_version(literal.value) if isinstance(literal.value, str) else None
        if version is None:
            self._wrong(
                "bad_version",
                literal,
                f"version: got {_show(literal.value)}",
                'a string of three numbers such as "1.0.0"',
            )
            return None
        if version != normalise_version(upload_version):
            self._wrong(
                "version_mismatch",
                literal,
                f'version is "{version}", but the upload was created for "{upload_version}"',
                f'write version = "{upload_version}", or create the upload with version "{version}"',
            )
        return version

    def _description(self) -> str:
        text = self._optional_text("description")
        return "" if text is None else text[:DESCRIPTION_CHARS_MAX]

    def _features(self) -> list[dict]:
        literal = self.names.get("features")
        example = (
            'features = [{"feature_type": "embedding", "feature_name": "...", "embedding_dim": 128, '
            '"distance_metric": "cosine"}]'
        )
        if literal is None:
            self._missing("features", f"add {example}")
            return []
        if not isinstance(literal.value, list):
            self._wrong(
                "bad_features", literal, f"features: got {_show(literal.value)}, expected a list", example
            )
            return []
        if not 1 <= len(literal.items) <= FEATURES_MAX:
            self._wrong(
                "bad_features",
                literal,
                f"features has {len(literal.items)} entries",
                f"declare 1 to {FEATURES_MAX} features",
            )
        features, seen = [], set()
        for index, item in enumerate(literal.items[:FEATURES_MAX]):
            feature = self._feature(f"features[{index}]", item)
            name = feature.get("feature_name")
            if name is not None and name in seen:
                self._wrong(
                    "duplicate_feature",
                    item.entries["feature_name"][0],
                    f'features[{index}]: the name "{name}" is already taken',
                    "give each feature a name of its own",
                )
            seen.add(name)
            features.append(feature)
        return features

    def _feature(self, where: str, item: Literal) -> dict:
        if not isinstance(item.value, dict):
            self._wrong(
                "bad_features",
                item,
                f"{where}: got {_show(item.value)}, expected a dict",
                "write the keys " + ", ".join(FEATURE_KEYS),
            )
            return {}
        replaced = self._feature_keys(where, item)
        feature: dict[str, Any] = {}
        for key in FEATURE_KEYS:
            if key in item.entries:
                value = self._feature_value(where, key, item.entries[key][0])
                if value is not None:
                    feature[key] = value
            elif key not in replaced:
                self._wrong(
                    "missing_feature_key",
                    item,
                    f'{where}: the key "{key}" is missing',
                    f'add "{key}": {_EXAMPLES[key]}',
                )
        return feature

    def _feature_keys(self, where: str, item: Literal) -> set[str]:
        """Reports keys that are not ours; returns the right keys in whose place they stand."""
        replaced = set()
        for number, (key, (_, node)) in enumerate(item.entries.items()):
            if key in FEATURE_KEYS or key in FEATURE_EXTRAS:
                continue
            right = FEATURE_KEY_HINTS.get(key.lower())
            if right is None and number < COMPARED_MAX and len(key) <= NAME_CHARS_MAX:
                near = difflib.get_close_matches(key.lower(), FEATURE_KEYS, 1, 0.75)
                right = near[0] if near else None
            if right is None:
                self.findings.warn(
                    "unknown_feature_key",
                    self.source.at(node),
                    f'{where}: unknown key "{key}" is left out',
                    "the keys are " + ", ".join(FEATURE_KEYS),
                )
                continue
            replaced.add(right)
            remedy = (
                f'use "{right}"' if right not in item.entries else f'remove it; "{right}" is there already'
            )
            self.findings.error(
                "wrong_feature_key",
                self.source.at(node),
                f'{where}: unknown key "{key}"; {remedy}',
                f'rename "{key}" to "{right}"' if right not in item.entries else f'remove "{key}"',
            )
        return replaced

    def _feature_value(self, where: str, key: str, literal: Literal) -> Any:
        value, got = literal.value, f"{where}.{key}: got {_show(literal.value)}"
        if key == "feature_type":
            if value == "embedding":
                return value
            self._wrong("bad_feature_type", literal, got, 'the only feature type is "embedding"')
        elif key == "feature_name":
            if isinstance(value, str) and FEATURE_NAME.match(value):
                if value not in INPUT_COLUMNS:
                    return value
                self._wrong(
                    "bad_feature_name", literal, got + ", the name of an input column", "choose another name"
                )
            else:
                self._wrong(
                    "bad_feature_name",
                    literal,
                    got,
                    "a letter, then letters, digits, underscores and hyphens, at most 100 characters",
                )
        elif key == "embedding_dim":
            if type(value) is int and 1 <= value <= DIMS_MAX:
                return value
            self._wrong("bad_embedding_dim", literal, got, f"an integer from 1 to {DIMS_MAX}")
        elif key == "distance_metric":
            if value in METRICS:
                return value
            near = METRIC_HINTS.get(value.lower(), value.lower()) if isinstance(value, str) else None
            self._wrong(
                "bad_distance_metric",
                literal,
                got,
                f'use "{near}"' if near in METRICS else "one of " + ", ".join(f'"{m}"' for m in METRICS),
            )
        return None

    def _output_schema(self, features: list[dict]) -> dict:
        schema = self._mapping("output_schema")
        literal = self.names.get("output_schema")
        if literal is not None and schema:
            for feature in features:
                name = feature.get("feature_name")
                if name is not None and name not in schema and name not in _properties(schema):
                    self.findings.warn(
                        "feature_not_in_schema",
                        self.source.at(literal.node),
                        f'output_schema does not name the feature "{name}"',
                        f'add "{name}" to output_schema',
                    )
        return schema

    def _input_mappings(self) -> dict | list:
        literal = self.names.get("input_mappings")
        if literal is not None and isinstance(literal.value, list):
            return literal.value
        return self._mapping("input_mappings")

    def _dependencies(self) -> list[dict]:
        """Requirement strings with their places; whether they are met is decided beside the list of files."""
        literal = self.names.get("dependencies")
        if literal is None or literal.value is None:
            return []
        if not isinstance(literal.value, list):
            self._wrong(
                "bad_dependencies",
                literal,
                f"dependencies: got {_show(literal.value)}",
                'a list of strings such as ["numpy"]',
            )
            return []
        found = []
        for index, item in enumerate(literal.items):
            if isinstance(item.value, str) and item.value.strip():
                found.append({"requirement": item.value.strip(), "location": self.source.at(item.node)})
            else:
                self._wrong(
                    "bad_dependencies",
                    item,
                    f"dependencies[{index}]: got {_show(item.value)}",
                    'a string such as "numpy>=2"',
                )
        return found

    def _compute_profile(self) -> dict:
        profile: dict[str, Any] = {
            "resource_type": "cpu",
            "batch_size": 64,
            "max_concurrency": 2,
            "memory_class": "standard",
        }
        literal = self.names.get("compute_profile")
        if literal is None or literal.value is None:
            return profile
        if not isinstance(literal.value, dict):
            self._wrong(
                "bad_compute_profile",
                literal,
                f"compute_profile: got {_show(literal.value)}",
                'a dict such as {"resource_type": "cpu"}',
            )
            return profile
        for key, (entry, node) in literal.entries.items():
            value = entry.value
            if key == "resource_type":
                self._resource_type(entry)
                profile[key] = value if value in ("cpu", "api") else "cpu"
            elif key in ("batch_size", "max_concurrency"):
                most = BATCH_SIZE_MAX if key == "batch_size" else CONCURRENCY_MAX
                if type(value) is int and 1 <= value <= most:
                    profile[key] = value
                else:
                    self._wrong(
                        "bad_compute_profile",
                        entry,
                        f"compute_profile.{key}: got {_show(value)}",
                        f"an integer from 1 to {most}",
                    )
            elif key == "memory_class":
                profile[key] = self._memory_class(entry)
            elif "gpu" in key.lower() and value not in (None, False, 0):
                self._gpu(entry, f"compute_profile.{key}")
            elif "gpu" not in key.lower():
                self.findings.warn(
                    "unknown_compute_key",
                    self.source.at(node),
                    f'compute_profile: "{key}" has no effect here',
                    f'write "memory_class": "{_class_for(value)}"'
                    if key in ("memory_mb", "memory")
                    else "the keys are " + ", ".join(profile),
                )
        return profile

    def _memory_class(self, literal: Literal) -> str:
        value, classes = literal.value, self.allowed.memory_classes
        if isinstance(value, str) and value in MEMORY_CLASSES:
            if value not in classes:
                self._wrong(
                    "memory_class_not_supported",
                    literal,
                    f'compute_profile.memory_class "{value}" ({MEMORY_CLASSES[value]} MB) is not offered here',
                    "use one of " + ", ".join(f'"{c}"' for c in classes),
                )
            return value
        sizes = ", ".join(f'"{name}" ({size} MB)' for name, size in MEMORY_CLASSES.items())
        self._wrong(
            "bad_compute_profile",
            literal,
            f"compute_profile.memory_class: got {_show(value)}",
            f"one of {sizes}",
        )
        return "standard"

    def _resource_type(self, literal: Literal) -> None:
        if isinstance(literal.value, str) and "gpu" in literal.value.lower():
            self._gpu(literal, "compute_profile.resource_type")
        elif literal.value == "api":
            self._api(literal)
        elif literal.value != "cpu":
            self._wrong(
                "bad_compute_profile",
                literal,
                f"compute_profile.resource_type: got {_show(literal.value)}",
                'use "cpu"',
            )

    def _api(self, literal: Literal) -> None:
        if self.allowed.egress:
            return
        where = self.source.at(literal.node)
        fix = 'use "cpu" and bring weights along under models/, or have egress turned on for this stage'
        if self.allowed.egress is None:
            message = 'compute_profile.resource_type "api": plugins have no network unless the stage opens it'
            self.findings.warn("network_closed", where, message, fix)
        else:
            message = 'compute_profile.resource_type "api" asks for a network, which plugins of this stage do not have'
            self.findings.error("network_closed", where, message, fix)

    def _gpu(self, literal: Literal, where: str) -> None:
        self._wrong(
            "gpu_not_supported",
            literal,
            f"{where} asks for a GPU; plugins run on Lambda, which has none",
            'use {"resource_type": "cpu"} and a model that runs on a CPU',
        )

    def _container_image(self) -> str | None:
        literal = self.names.get("container_image")
        if literal is None or literal.value is None:
            return None
        value = literal.value
        if not self.allowed.container_images:
            self._wrong(
                "container_image_not_supported",
                literal,
                "container_image is set, but here plugins run in the warehouse's own Python runtime, not in images of "
                "their own",
                "remove container_image and put packages the runtime lacks under vendor/",
            )
            return None
        match = IMAGE.match(value) if isinstance(value, str) and len(value) <= IMAGE_CHARS_MAX else None
        if match is None or not 2 <= len(match.group("repository")) <= REPOSITORY_CHARS_MAX:
            self._wrong(
                "bad_container_image",
                literal,
                f"container_image: got {_show(value)}",
                "a private image in Amazon ECR: <account>.dkr.ecr.<region>.amazonaws.com/<repository>@sha256:<digest>, "
                "or with :<tag>",
            )
            return None
        if match.group("digest") is None:
            self.findings.warn(
                "image_not_pinned",
                self.source.at(literal.node),
                "container_image names a tag, which may mean another image tomorrow",
                "name the image by its digest: ...@sha256:<digest>",
            )
        return value

    def _secrets(self) -> list[str]:
        """Names of the secrets that are given to the plugin; it gets no others."""
        literal = self.names.get("secrets")
        if literal is None or literal.value is None:
            return []
        right = 'a list of names such as ["API_TOKEN"]'
        if not isinstance(literal.value, list):
            self._wrong("bad_secrets", literal, f"secrets: got {_show(literal.value)}", right)
            return []
        if len(literal.items) > SECRETS_MAX:
            self._wrong(
                "bad_secrets",
                literal,
                f"secrets has {len(literal.items)} names",
                f"name at most {SECRETS_MAX}",
            )
        names: list[str] = []
        for index, item in enumerate(literal.items[:SECRETS_MAX]):
            value = item.value
            if not isinstance(value, str) or not SECRET_NAME.match(value):
                self._wrong(
                    "bad_secrets",
                    item,
                    f"secrets[{index}]: got {_show(value) if len(_show(value)) <= 66 else 'a long value'}",
                    "the name of a secret, not its value: a capital letter, then capital letters, digits and "
                    "underscores, at most 64 characters",
                )
            elif value in names:
                self._wrong(
                    "bad_secrets", item, f'secrets[{index}]: "{value}" is named twice', "name it once"
                )
            else:
                names.append(value)
        return names

    def _tier(self) -> int | None:
        literal = self.names.get("tier")
        if literal is None or literal.value is None:
            return None
        if type(literal.value) is int:
            return literal.value
        self._left_out("tier", literal, "an integer")
        return None

    def _optional_text(self, key: str) -> str | None:
        literal = self.names.get(key)
        if literal is None or literal.value is None:
            return None
        if isinstance(literal.value, str):
            return literal.value
        self._left_out(key, literal, "a string")
        return None

    def _texts(self, key: str) -> list[str]:
        literal = self.names.get(key)
        if literal is None or literal.value is None:
            return []
        if isinstance(literal.value, list) and all(isinstance(v, str) for v in literal.value):
            return literal.value
        self._left_out(key, literal, "a list of strings")
        return []

    def _mapping(self, key: str) -> dict:
        literal = self.names.get(key)
        if literal is None or literal.value is None:
            return {}
        if isinstance(literal.value, dict):
            return literal.value
        self._left_out(key, literal, "a dict")
        return {}

    def _left_out(self, key: str, literal: Literal, right: str) -> None:
        self.findings.warn(
            "wrong_type",
            self.source.at(literal.node),
            f"{key}: got {_show(literal.value)}; it is left out",
            f"write {right}",
        )


_EXAMPLES = {
    "feature_type": '"embedding"',
    "feature_name": '"my_plugin_v1_embedding"',
    "embedding_dim": "128",
    "distance_metric": '"cosine"',
}


def _class_for(megabytes: Any) -> str:
    """The smallest memory class with so many megabytes, else the largest."""
    if type(megabytes) not in (int, float):
        return "standard"
    return next((name for name, size in MEMORY_CLASSES.items() if size >= megabytes), "large")


def _properties(schema: dict) -> dict:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

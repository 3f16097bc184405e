"""Looks through the plugin's code for what cannot work or should not be there.

This is a lint for honest mistakes and **never the boundary**: a determined author gets around any such list.
What holds a plugin back is its process, its role and its network. Aliases are followed (``import os as o``,
``from os import execv as e``, ``f = open``, ``getattr(os, "system")``), scopes and branches are not.
"""

from __future__ import annotations

import ast

from _findings import Findings
from _source import Source

ERROR_IMPORTS = {
    "subprocess": "a plugin cannot start programs; call a library instead",
    "ctypes": "use a package with a compiled wheel under vendor/",
    "socket": "a plugin has no network; put weights and word lists into the archive",
    "multiprocessing": "the runner already works on several chunks at once; use plain code",
    "threading": "the runner already works on several chunks at once; use plain code or concurrent.futures",
}
WARN_IMPORTS = {
    "pty",
    "fcntl",
    "resource",
    "commands",
    "popen2",
    "pickle",
    "marshal",
    "shelve",
}
_EXEC = {"execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"}
ERROR_NAMES = {
    **{
        f"os.{name}": "a plugin cannot start programs; call a library instead"
        for name in {"system", "popen"} | _EXEC
    },
    "eval": "parse the text with json or ast.literal_eval",
    "exec": "write the code out",
    "open": 'read files by a library: np.load(Path(__file__).parent / "w.npz") or Path(...).read_text()',
}
_SPAWN = {"spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe"}
WARN_NAMES = {
    *(f"os.{name}" for name in _SPAWN | {"posix_spawn", "posix_spawnp", "fork", "forkpty", "kill", "killpg"}),
    "compile",
    "__import__",
    "globals",
    "locals",
    "vars",
    "setattr",
    "delattr",
    "importlib.import_module",
}
WARN_ATTRIBUTES = {
    "__subclasses__",
    "__globals__",
    "__builtins__",
    "__code__",
    "__closure__",
    "__bases__",
    "__base__",
    "__mro__",
    "__loader__",
    "__getattribute__",
    "__reduce__",
    "__reduce_ex__",
    "__self__",
    "__wrapped__",
}
_SAME_AS = {"posix": "os", "io.open": "open", "_io.open": "open", "nt": "os"}
_ALIAS_ROUNDS = 8


SECRETS_SEEN_MAX = 100


def scan(source: Source, findings: Findings, vendored: bool) -> list[tuple[str, list]]:
    """Scans one file. In vendored packages everything is a warning: nearly every published wheel opens
    files.

    Returns the secrets that it asks for by name, ``container.secrets.get("API_TOKEN")``, each with its place.
    """
    one = _Scan(source, findings, vendored)
    one.run()
    return one.secrets


class _Scan:
    def __init__(self, source: Source, findings: Findings, vendored: bool) -> None:
        self.source = source
        self.findings = findings
        self.vendored = vendored
        self.aliases: dict[str, str] = {}
        self.own: set[str] = set()
        self.secrets: list[tuple[str, list]] = []

    def run(self) -> None:
        nodes = list(ast.walk(self.source.tree))
        nodes.sort(key=lambda n: (getattr(n, "lineno", 0), getattr(n, "col_offset", 0)))
        self._learn(nodes)
        inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    self._import(node, name.name)
            elif isinstance(node, ast.ImportFrom):
                if node.level == 0 and node.module:
                    self._import(node, node.module)
                    for name in node.names:
                        self._name(
                            node,
                            _same(f"{node.module}.{name.name}"),
                            f"from {node.module} import {name.name}",
                        )
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                if isinstance(node, ast.Attribute) and node.attr in WARN_ATTRIBUTES:
                    self._report(
                        False,
                        "suspicious_attribute",
                        node,
                        f"reaches for .{node.attr}",
                        "leave out Python's internals",
                    )
                # In os.path.join only the outermost attribute speaks; its inner names would say the same
                # again.
                if id(node) not in inner:
                    self._name(node, self._resolve(node), _written(node))
            elif isinstance(node, ast.Call):
                self._call(node)

    def _learn(self, nodes: list[ast.AST]) -> None:
        assigned: list[tuple[str, ast.expr]] = []
        for node in nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    local = name.asname or name.name.split(".")[0]
                    self.aliases[local] = _same(name.name if name.asname else local)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for name in node.names:
                    if name.name == "*":
                        self._learn_star(_same(node.module))
                    else:
                        self.aliases[name.asname or name.name] = _same(f"{_same(node.module)}.{name.name}")
            elif isinstance(node, ast.ImportFrom):
                self.own.update(name.asname or name.name for name in node.names)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.own.add(node.name)
            elif isinstance(node, ast.arg):
                self.own.add(node.arg)
            elif isinstance(node, ast.Assign):
                assigned += [(t.id, node.value) for t in node.targets if isinstance(t, ast.Name)]
            elif (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.value is not None
            ):
                assigned.append((node.target.id, node.value))
            elif isinstance(node, ast.NamedExpr):
                assigned.append((node.target.id, node.value))
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.own.add(node.id)
        # `f = open`, then `g = f`: each round follows one more link.
        for _ in range(_ALIAS_ROUNDS):
            before = len(self.aliases)
            for name, value in assigned:
                if name not in self.aliases:
                    target = self._resolve(value)
                    if target is not None and _interesting(target):
                        self.aliases[name] = target
            if len(self.aliases) == before:
                break

    def _learn_star(self, module: str) -> None:
        for name in (*ERROR_NAMES, *WARN_NAMES):
            if name.startswith(module + "."):
                self.aliases.setdefault(name[len(module) + 1 :], name)

    def _resolve(self, node: ast.AST) -> str | None:
        """The dotted name behind an expression, as far as it can be told: ``o.system`` -> ``os.system``."""
        parts: list[str] = []
        while True:
            if isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Call) and (got := _constant_getattr(node)) is not None:
                parts.append(got[1])
                node = got[0]
            else:
                break
        if isinstance(node, ast.Call) and node.args:
            called = self._resolve(node.func)
            module = node.args[0]
            if called not in ("__import__", "importlib.import_module"):
                return None
            if not (isinstance(module, ast.Constant) and isinstance(module.value, str)):
                return None
            base = module.value if called != "__import__" else module.value.split(".")[0]
        elif isinstance(node, ast.Name):
            if node.id in self.aliases:
                base = self.aliases[node.id]
            elif node.id in self.own:
                return None
            else:
                base = node.id
        else:
            return None
        return _same(".".join([base, *reversed(parts)]))

    def _import(self, node: ast.AST, module: str) -> None:
        top = module.split(".")[0]
        if top in ERROR_IMPORTS:
            self._report(True, "forbidden_import", node, f"imports {module}", ERROR_IMPORTS[top])
        elif top in WARN_IMPORTS:
            self._report(
                False, "suspicious_import", node, f"imports {module}", "leave it out unless it is needed"
            )

    def _name(self, node: ast.AST, name: str | None, written: str) -> None:
        if name is None:
            return
        shown = written if written == name else f"{written} (that is {name})"
        if name in ERROR_NAMES:
            self._report(True, "forbidden_call", node, f"uses {shown}", ERROR_NAMES[name])
        elif name in WARN_NAMES:
            self._report(False, "suspicious_call", node, f"uses {shown}", "leave it out unless it is needed")

    def _call(self, node: ast.Call) -> None:
        got = _constant_getattr(node)
        if got is not None:
            self._name(node, self._resolve(node), f'getattr(..., "{got[1]}")')
            return
        called = self._resolve(node.func)
        first = node.args[0] if node.args else None
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            return
        if called in ("__import__", "importlib.import_module"):
            self._import(node, first.value)
        elif _written(node.func).endswith(".secrets.get") and len(self.secrets) < SECRETS_SEEN_MAX:
            self.secrets.append((first.value, self.source.at(first)))

    def _report(self, error: bool, kind: str, node: ast.AST, what: str, fix: str) -> None:
        say = self.findings.error if error and not self.vendored else self.findings.warn
        say(kind, self.source.at(node), f"{self.source.path} {what}", fix)


def _same(name: str) -> str:
    """One name for things that have several: ``builtins.open``, ``io.open`` and ``open``; ``posix`` and
    ``os``."""
    for prefix in ("builtins.", "__builtins__."):
        if name.startswith(prefix):
            name = name[len(prefix) :]
    head, _, rest = name.partition(".")
    if head in _SAME_AS:
        name = _SAME_AS[head] + ("." + rest if rest else "")
    return _SAME_AS.get(name, name)


def _interesting(name: str) -> bool:
    top = name.split(".")[0]
    known = name in ERROR_NAMES or name in WARN_NAMES
    return known or top in ("os", "builtins", "__builtins__", "importlib", "io") or top in ERROR_IMPORTS


def _constant_getattr(node: ast.Call) -> tuple[ast.AST, str] | None:
    if not (isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) >= 2):
        return None
    name = node.args[1]
    return (
        (node.args[0], name.value) if isinstance(name, ast.Constant) and isinstance(name.value, str) else None
    )


def _written(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "(...)")
    return ".".join(reversed(parts))

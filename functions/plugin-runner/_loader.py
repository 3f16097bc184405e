"""Imports a plugin's modules the way their author wrote the imports.

The folder becomes a package named after itself, and it and ``vendor/`` come first on the search path. So
these work: ``from .u import v``, ``from processors.core import v``, ``from text_embed.u import v``, ``from
pipeline import v``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import _stubs
from _faults import ContractFault


class Plugin:
    """One plugin's modules, imported when they are first needed."""

    def __init__(self, folder: str, package: str) -> None:
        self.folder = folder
        self.package = package
        for entry in (str(Path(folder, "vendor")), folder):
            if Path(entry).is_dir():
                sys.path.insert(0, entry)
        importlib.invalidate_caches()
        _stubs.install(folder)

    def module(self, name: str) -> ModuleType:
        """Imports ``pipeline`` or ``realtime``. Raises what the module raises, or ContractFault if it is not
        there."""
        if not Path(self.folder, f"{name}.py").is_file():
            raise ContractFault("plugin_load_failed", f"the archive has no {name}.py beside manifest.py")
        self._import_package()
        module = importlib.import_module(f"{self.package}.{name}")
        # `from pipeline import x` elsewhere in the plugin shall mean this module, not a second copy of it.
        sys.modules.setdefault(name, module)
        return module

    def _import_package(self) -> None:
        if self.package in sys.modules:
            return
        init = Path(self.folder, "__init__.py")
        if init.is_file():
            spec = importlib.util.spec_from_file_location(
                self.package, init, submodule_search_locations=[self.folder]
            )
            module = importlib.util.module_from_spec(spec)
            sys.modules[self.package] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[self.package]
                raise
        else:
            module = ModuleType(self.package)
            module.__path__ = [self.folder]
            sys.modules[self.package] = module

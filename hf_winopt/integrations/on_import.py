"""Run a callback once a module has been imported, without importing it."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Callback = Callable[[ModuleType], None]


def when_imported(name: str, callback: Callback) -> None:
    """Call `callback(module)` once the module `name` has been imported: now, if it already was.

    Args:
        name: full dotted name of the module.
        callback: called once, with the module, before the import statement that loads it returns.
            An exception that it raises leaves that import statement.
    """
    _finder.waiting.setdefault(name, []).append(callback)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.fire_for_the_imported()
    _finder.leave_if_done()


class _Finder:
    """Finds nothing itself: it lets the others find, and wraps the loader of a module that is waited for."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Callback]] = {}
        self._asking = threading.local()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        self.fire_for_the_imported()
        # find_spec below asks every finder, this one too: the second time it must let the others answer.
        asking = getattr(self._asking, "name", None)
        if fullname not in self.waiting or asking == fullname:
            return None
        self._asking.name = fullname
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking.name = asking
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Announcer(spec.loader, fullname)  # type: ignore[assignment]
        return spec

    def fire_for_the_imported(self) -> None:
        """For a module that was half imported when the waiting began, this is at the next import of any."""
        for name in list(self.waiting):
            module = sys.modules.get(name)
            if module is not None and not getattr(module.__spec__, "_initializing", False):
                self.fire(module, name)

    def fire(self, module: ModuleType, name: str) -> None:
        for callback in self.waiting.pop(name, []):
            callback(module)

    def leave_if_done(self) -> None:
        """Never called from find_spec: there, the list of finders is being walked along."""
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)  # type: ignore[arg-type]


class _Announcer:
    """The real loader in everything, but the finder hears when it has executed the module."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader, self._name = loader, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._loader, attribute)

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its real loader: pickling, inspect and reload look at it.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _finder.fire(sys.modules.get(self._name, module), self._name)
        _finder.leave_if_done()


_finder: Any = _Finder()

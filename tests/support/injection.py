"""Every function of some modules made to fail on demand, and what goes in and out of them looked at."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Injected(Exception):
    """Nobody expects this one."""


class Faults:
    """``armed`` is the name of the function that fails when it is called next; ``called`` are all that were."""

    def __init__(self, before: Callable[[], None], look: Callable[[object], None]) -> None:
        self.armed = ""
        self.after = False
        self.error: type[BaseException] = Injected
        self.hit = False
        self.called: set[str] = set()
        self._before = before
        self._look = look

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.called.add(name)
            fails = self.armed == name and not self.hit
            if fails and not self.after:
                self.fail()
            result = function(*args, **kwargs)
            if fails:
                self.fail()
            for each in (*args, *kwargs.values(), result):
                if dataclasses.is_dataclass(each) and not isinstance(each, type):
                    self._look(each)
            return result

        return wrapper

    def fail(self) -> None:
        self.hit = True
        self._before()
        raise self.error("injected")


def modules(*names: str) -> list[ModuleType]:
    """Modules by name; a package stands for all that is in it."""
    found = []
    for name in names:
        module = importlib.import_module(name)
        found.append(module)
        for each in pkgutil.iter_modules(getattr(module, "__path__", [])):
            found.append(importlib.import_module(f"{name}.{each.name}"))
    return found


@contextmanager
def injected(faults: Faults, targets: list[ModuleType]) -> Iterator[None]:
    """Put wrappers in the place of the modules' functions and methods, wherever these are used by name."""
    undo: list[tuple[Any, str, Any]] = []
    replaced: dict[int, Any] = {}
    for module in targets:
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", "") != module.__name__:
                continue
            label = f"{module.__name__.removeprefix('postseal.')}.{name}"
            if inspect.isfunction(value) and not inspect.isgeneratorfunction(value):
                replaced[id(value)] = faults.around(label, value)
            elif inspect.isclass(value) and not issubclass(value, BaseException):
                for method, function in list(vars(value).items()):
                    if inspect.isfunction(function) and not method.startswith("__") and not _generated(function):
                        undo.append((value, method, function))
                        setattr(value, method, faults.around(f"{label}.{method}", function))
    for module in [m for n, m in sys.modules.items() if n.startswith("postseal.") and m is not None]:
        for name, value in list(vars(module).items()):
            if id(value) in replaced:
                undo.append((module, name, value))
                setattr(module, name, replaced[id(value)])
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


def _generated(function: Any) -> bool:
    return inspect.isgeneratorfunction(function)

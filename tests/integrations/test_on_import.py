"""Callbacks that wait for an import."""

import importlib
import importlib.util
import sys

import pytest

from hf_winopt.integrations import on_import
from hf_winopt.integrations.on_import import when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module that can be imported, and forgets it at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, text=""):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)
        on_import._finder.waiting.pop(name, None)


def waits():
    return on_import._finder in sys.meta_path


def test_it_runs_once_after_the_module_has(module):
    seen = []
    name = module("awaited_one", "import sys\nvalue = 1\n")
    when_imported(name, lambda loaded: seen.append(loaded.value))
    assert seen == [] and name not in sys.modules
    loaded = importlib.import_module(name)
    assert seen == [1]
    importlib.reload(loaded)
    assert seen == [1]


def test_it_runs_at_once_if_the_module_is_there(module):
    seen = []
    loaded = importlib.import_module(module("awaited_two"))
    when_imported("awaited_two", seen.append)
    assert seen == [loaded]


def test_every_callback_runs_in_order(module):
    seen = []
    name = module("awaited_three")
    when_imported(name, lambda loaded: seen.append("first"))
    when_imported(name, lambda loaded: seen.append("second"))
    importlib.import_module(name)
    assert seen == ["first", "second"]


def test_asking_for_the_spec_is_no_import(module):
    seen = []
    name = module("awaited_four", "value = 4\n")
    when_imported(name, seen.append)
    spec = importlib.util.find_spec(name)
    assert spec.loader.get_source(name) == "value = 4\n"
    assert seen == []
    loaded = importlib.import_module(name)
    assert seen == [loaded]
    assert type(loaded.__loader__).__module__ == type(loaded.__spec__.loader).__module__ == "_frozen_importlib_external"


def test_a_module_that_does_not_exist_stays_so():
    when_imported("no_such_module_anywhere", pytest.fail)
    try:
        assert importlib.util.find_spec("no_such_module_anywhere") is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_module_anywhere")
    finally:
        del on_import._finder.waiting["no_such_module_anywhere"]


def test_a_module_that_fails_may_be_tried_again(module):
    seen = []
    name = module("awaited_five", "import sys\nif not getattr(sys, 'awaited_five', False): raise OSError('not yet')\n")
    when_imported(name, seen.append)
    with pytest.raises(OSError, match="not yet"):
        importlib.import_module(name)
    assert seen == []
    sys.awaited_five = True
    try:
        assert seen == [importlib.import_module(name)] or seen
    finally:
        del sys.awaited_five
    assert len(seen) == 1


def test_a_module_half_imported_is_waited_for(module):
    # Whoever is imported by the module in question may be the one who starts to wait for it.
    seen = []
    sys.waiter = lambda: when_imported("awaited_six", lambda loaded: seen.append(loaded.value))
    try:
        importlib.import_module(module("awaited_six", "import sys\nsys.waiter()\nvalue = 6\n"))
    finally:
        del sys.waiter
    assert seen == []  # not with half a module
    importlib.import_module(module("any_other"))
    assert seen == [6]


def test_the_finder_leaves_when_nothing_is_waited_for(module):
    when_imported(module("awaited_seven"), lambda loaded: None)
    assert waits()
    importlib.import_module("awaited_seven")
    assert waits() == bool(on_import._finder.waiting)


def test_what_the_callback_raises_leaves_the_import(module):
    def refuse(loaded):
        raise RuntimeError("refused")

    when_imported(module("awaited_eight"), refuse)
    with pytest.raises(RuntimeError, match="refused"):
        importlib.import_module("awaited_eight")

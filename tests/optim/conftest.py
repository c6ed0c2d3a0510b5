"""What several tests of the optimizers take."""

from __future__ import annotations

import contextlib

import pytest

from hf_winopt.engine import machine_code, ready


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the `compile` engine before the compiler has them: the same operations, in a tenth of the time."""
    monkeypatch.setattr(ready, "ahead_of_time", lambda request: machine_code.exported(request).module())
    monkeypatch.setattr(ready, "compiled_beside", contextlib.nullcontext)
    monkeypatch.setattr(ready, "_ready", _traced)


_traced: dict[object, object] = {}
"""They are kept from test to test, as the machine code is."""

"""Which device a name means."""

from __future__ import annotations

import pytest
import torch

from lcnet_rl.device import resolve_device
from lcnet_rl.errors import UserError


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="there are 2 GPUs, from cuda:0 on"):
        resolve_device("cuda:2")

"""What the training commands share."""

import pytest
import torch

from napari_nucseg.errors import NucSegError
from train.runs import choose_device


def test_devices_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(name) for name in ("auto", "cpu", "cuda", "cuda:0")] == [
        "cuda",
        "cpu",
        "cuda",
        "cuda:0",
    ]
    with pytest.raises(NucSegError, match="device='cuda:1' is not there: torch finds 1"):
        choose_device("cuda:1")
    with pytest.raises(NucSegError, match="device='gpu' is not known; choose auto"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(NucSegError, match="torch finds 0"):
        choose_device("cuda")

"""What the unit tests share."""

import pytest
import torch

torch.set_num_threads(1)  # the models here are tiny, and pytest-xdist uses the other cores


@pytest.fixture
def clean_environment(monkeypatch, tmp_path):
    """No test sees the user's settings, data, cache or proxy."""
    for name in ("AR_QUICK", "AR_RETRAIN", "AR_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

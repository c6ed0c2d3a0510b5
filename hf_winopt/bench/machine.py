"""What figures were measured on, and nothing that tells whose machine it was."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import __version__


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, device, driver and versions; None for what is not there or not known."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _name(device),
        "driver": _driver(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton(),
        "transformers": _version("transformers"),
        "hf_winopt": __version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _name(device: torch.device) -> str:
    module = torch.get_device_module(device)
    return module.get_device_name(device) if hasattr(module, "get_device_name") else device.type


def _driver(device: torch.device) -> str | None:
    if device.type == "xpu":
        return str(torch.xpu.get_device_properties(device).driver_version)
    if device.type != "cuda":
        return None
    path = Path("/sys/module", "amdgpu" if torch.version.hip else "nvidia", "version")
    return path.read_text().strip() if path.exists() else _driver_by_command()


def _driver_by_command() -> str | None:
    """What NVIDIA's own command says; virtual machines may show no modules."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said else None


def _triton() -> str | None:
    try:
        import triton  # its distribution has another name on each kind of device
    except ImportError:
        return None
    return str(triton.__version__)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None

"""When, at which commit and on what a report was measured."""

import platform
import subprocess
from datetime import UTC, datetime

import torch


def surroundings() -> dict[str, str]:
    """When, at which commit and on what this ran."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    device = f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": git.stdout.strip(), "device": device}

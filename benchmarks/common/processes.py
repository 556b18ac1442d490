"""Work spread over processes, and groups of processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path


def spread(call: Callable, items: Sequence, processes: int) -> list:
    """The results are in order."""
    results = []
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for result in pool.map(call, items):
            results.append(result)
            print(f"\r{len(results)} of {len(items)} measured", end="", flush=True)
    print()
    return results


def family(pid: int) -> list[int]:
    """A running process and all its running descendants (Linux)."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found

"""Work spread over processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def spread(call: Callable, items: Sequence, processes: int) -> list:
    """`call` over items, in so many processes; results in order."""
    results = []
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for result in pool.map(call, items):
            results.append(result)
            print(f"\r{len(results)} of {len(items)} measured", end="", flush=True)
    print()
    return results

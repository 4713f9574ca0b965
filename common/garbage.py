"""When CPython looks for reference cycles."""

import gc

_ALLOCATIONS = 20_000


def calm_garbage_collector() -> None:
    """Call it once all is imported and opened: what is there stays for good, and is never looked at again.

    As it comes, the collector looks after every 700 allocations, and every hundredth time at all that the process has
    ever made, its modules included. That was a fifth of a busy worker's time. What its structures hold in cycles
    waits a little longer now, in memory of a few megabytes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)

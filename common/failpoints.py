"""Named places at which a test may let a process die, fail or wait. Nothing in the product arms one.

They stand where two stores, or a store and the world, may be left apart: before and after each commit, around a
tool's effect, before an append, and wherever a reply may be lost. Unarmed, one costs an empty look-up.
"""

from collections.abc import Awaitable, Callable

FAILPOINTS = frozenset(
    {
        "request.before_commit",  # a post, regenerate, edit, cancel or deletion, in the API's transaction
        "request.after_commit",  # raising here: the COMMIT's reply is lost
        "bell.before",  # committed, and nobody has been rung for
        "bell.after",
        "signal.before",  # a cancel is committed, and its worker does not know
        "claim.after",  # ours in Postgres, and nobody has begun
        "model_call.before_commit",
        "model_call.after_commit",
        "step.before_commit",
        "step.after_commit",
        "call.before_commit",  # a tool call is noted as started
        "call.after_commit",
        "tool.before_effect",
        "tool.after_effect",
        "result.before_commit",
        "result.after_commit",
        "end.before_commit",
        "end.after_commit",
        "end.before_append",  # the run has ended in Postgres, and its log does not say so
        "hand_back.before_commit",
        "hand_back.after_commit",
        "raise_attempt.after_commit",
        "heartbeat.after",
        "append.after",  # raising here: the script's reply is lost
        "append.retry",  # an append failed and is about to be repeated
        "sweep.after",  # expired leases are requeued; what must end is known to this process alone
        "promote.before_commit",  # the sweep makes up for a missed promotion
        "promote.after_commit",
        "tell_end.before",  # an end that was not the owner's is committed, and its log does not say so
        "tell_end.after",
    }
)

Action = Callable[[], Awaitable[None]]
_armed: dict[str, Action] = {}


def arm(name: str, action: Action) -> None:
    """From now on `action` is awaited at each passing of `name`; what it raises, the place raises.

    Raises KeyError for a name that is not in FAILPOINTS.
    """
    if name not in FAILPOINTS:
        raise KeyError(name)
    _armed[name] = action


async def failpoint(name: str) -> None:
    """Does nothing, unless a test has armed `name`."""
    if _armed and (action := _armed.get(name)) is not None:
        await action()

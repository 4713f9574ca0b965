"""Which model a run uses, level by level."""

import pytest

from api.commands.choice import resolve_model

DEFAULT = ("anthropic", "claude")
Level = tuple[str | None, str | None]
OPEN: Level = (None, None)


@pytest.mark.parametrize(
    ("agent", "conversation", "message", "expected"),
    [
        (OPEN, OPEN, OPEN, DEFAULT),
        ((None, "opus"), OPEN, OPEN, ("anthropic", "opus")),
        (("openai", "gpt"), OPEN, OPEN, ("openai", "gpt")),
        (("openai", "gpt"), (None, "mini"), OPEN, ("openai", "mini")),
        (("openai", "gpt"), ("openai", None), OPEN, ("openai", "gpt")),
        (("openai", "gpt"), ("echo", None), OPEN, ("echo", None)),
        (("openai", "gpt"), ("anthropic", None), OPEN, DEFAULT),
        (("openai", "gpt"), OPEN, (None, "mini"), ("openai", "mini")),
        (OPEN, ("openai", "gpt"), ("echo", "echo?repeat=2"), ("echo", "echo?repeat=2")),
        (OPEN, ("openai", None), OPEN, ("openai", None)),
    ],
)
def test_nearest_choice_wins_and_a_model_stays_with_its_provider(
    agent: Level, conversation: Level, message: Level, expected: Level
) -> None:
    """The last level that names one decides; another provider drops a model that was meant for the one before."""
    assert resolve_model(DEFAULT, [agent, conversation, message]) == expected

"""What a run uses: the message's choice, else the conversation's, else the agent's, else the default."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from api.errors import invalid
from common.config import Settings
from common.errors import ErrorCode, ThroughlineError
from common.model.messages import Agent, AgentSettings, Conversation
from common.model.requests import DEFAULT_MAX_STEPS
from common.store.agents import select_agent
from common.store.catalogue import Offers, select_offers
from common.store.database import Connection


class Wish(NamedTuple):
    """What somebody chose at one level; None where they left it open."""

    agent_id: UUID | None
    provider: str | None
    model: str | None


class Choice(NamedTuple):
    """All that a run is made with, as it stands now."""

    agent_id: UUID | None
    provider: str
    model: str
    instructions: str
    tools: list[str]
    settings: AgentSettings
    max_steps: int


async def choose(
    connection: Connection, settings: Settings, conversation: Conversation, message: Wish, offers: Offers
) -> Choice:
    """Resolves the levels against agents and `offers`, the catalogue.

    Without an agent every tool of the catalogue is at hand. Raises `unknown_agent`, `unknown_provider`,
    `provider_not_configured`, or `invalid_request` when nothing says which model to use.
    """
    agent_id = message.agent_id or conversation.agent_id
    agent = None if agent_id is None else await require_agent(connection, agent_id)
    levels = [
        (agent.provider, agent.model) if agent else (None, None),
        (conversation.provider, conversation.model),
        (message.provider, message.model),
    ]
    provider, model = resolve_model((settings.default_provider, settings.default_model), levels)
    check_provider(offers, provider)
    return Choice(
        agent_id=agent_id,
        provider=provider,
        model=model or _first_model(offers, provider),
        instructions="\n\n".join(filter(None, [agent.instructions if agent else None, conversation.system_prompt])),
        tools=agent.tools if agent else [tool.name for tool in offers.tools],
        settings=agent.settings if agent else AgentSettings(),
        max_steps=agent.max_steps if agent else DEFAULT_MAX_STEPS,
    )


def resolve_model(default: tuple[str, str], levels: Sequence[tuple[str | None, str | None]]) -> tuple[str, str | None]:
    """Provider and model after all levels, the strongest last. A model does not outlive a change of its provider:
    None then, unless the change leads back to the default's."""
    provider, model = default[0], None
    for level_provider, level_model in levels:
        if level_provider is not None and level_provider != provider:
            provider, model = level_provider, None
        model = level_model or model
    return provider, model or (default[1] if provider == default[0] else None)


async def check_wish(connection: Connection, wish: Wish) -> None:
    """Refuses what can never be run: raises `unknown_agent`, `unknown_provider` or `provider_not_configured`."""
    if wish.agent_id is not None:
        await require_agent(connection, wish.agent_id)
    if wish.provider is not None:
        check_provider(await select_offers(connection), wish.provider)


async def require_agent(connection: Connection, agent_id: UUID) -> Agent:
    """The agent of this workspace. Raises `unknown_agent`, also when it was deleted."""
    agent = await select_agent(connection, agent_id)
    if agent is None:
        raise ThroughlineError(ErrorCode.UNKNOWN_AGENT, "agentId: there is no such agent; choose another one")
    return agent


def check_provider(offers: Offers, name: str) -> None:
    """Raises `unknown_provider` or `provider_not_configured`; before a worker has spoken, nothing is refused."""
    if offers.is_empty:
        return
    offer = next((offer for offer in offers.providers if offer.name == name), None)
    if offer is None:
        raise ThroughlineError(
            ErrorCode.UNKNOWN_PROVIDER, f"provider: there is no {name!r}; GET /v1/models lists what there is"
        )
    if not offer.configured:
        raise ThroughlineError(
            ErrorCode.PROVIDER_NOT_CONFIGURED,
            f"provider: {name!r} is not configured; set {offer.missing or 'its key'} for the workers",
        )


def check_tools(offers: Offers, names: Sequence[str]) -> None:
    """Raises `unknown_tool`; before a worker has spoken, nothing is refused."""
    known = {tool.name for tool in offers.tools}
    unknown = [name for name in names if name not in known]
    if unknown and not offers.is_empty:
        raise ThroughlineError(
            ErrorCode.UNKNOWN_TOOL, f"tools: there is no {unknown[0]!r}; GET /v1/tools lists what there is"
        )


def _first_model(offers: Offers, provider: str) -> str:
    models = next((offer.models for offer in offers.providers if offer.name == provider), [])
    if not models:
        raise invalid(f"model: name one, since {provider!r} has no default")
    return models[0]

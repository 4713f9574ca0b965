"""What OpenAI's `model` names here: an agent, or a provider's model; and all that it can name."""

from collections import Counter
from uuid import UUID

from api.commands.choice import Wish, require_agent
from api.errors import invalid
from common.config import Settings
from common.errors import ErrorCode, ThroughlineError
from common.model.messages import Agent
from common.model.responses import ModelList, ModelObject
from common.store.agents import select_agents, select_agents_named
from common.store.catalogue import Offers, select_offers
from common.store.database import Connection

_MAX_AGENTS = 1000


async def wish_of_model(connection: Connection, settings: Settings, model: str | None) -> Wish:
    """Who answers; without a model nothing is wished for.

    An agent's id or name, `<provider>/<model>`, or a model that the catalogue lists, of the default provider if it has
    it. Raises `unknown_agent` or `unknown_provider`, and `invalid_request` for a name that two agents have.
    """
    if model is None:
        return Wish(None, None, None)
    agent_id = _uuid(model)
    if agent_id is not None:
        return Wish((await require_agent(connection, agent_id)).id, None, None)
    named = await select_agents_named(connection, model)
    if len(named) > 1:
        raise invalid(f"model: more than one agent is called {model!r}; send the id of one")
    if named:
        return Wish(named[0].id, None, None)
    offers = await select_offers(connection)
    return _offered(offers, settings, model)


async def list_models(connection: Connection) -> ModelList:
    """The agents of the workspace, newest first, then what providers that are configured list."""
    agents = await select_agents(connection, before=None, limit=_MAX_AGENTS)
    offers = await select_offers(connection)
    models = [
        ModelObject(id=f"{offer.name}/{model}", created=0, owned_by=offer.name)
        for offer in offers.providers
        if offer.configured
        for model in offer.models
    ]
    return ModelList(data=[*_as_models(agents), *models])


def _as_models(agents: list[Agent]) -> list[ModelObject]:
    """Each by its name, or by its id where another agent has the name, too."""
    holders = Counter(agent.name for agent in agents)
    return [
        ModelObject(
            id=agent.name if holders[agent.name] == 1 and _uuid(agent.name) is None else str(agent.id),
            created=int(agent.created_at.timestamp()),
            owned_by="workspace",
        )
        for agent in agents
    ]


def _offered(offers: Offers, settings: Settings, model: str) -> Wish:
    provider, slash, name = model.partition("/")
    if slash and name and (offers.is_empty or any(offer.name == provider for offer in offers.providers)):
        return Wish(None, provider, name)
    listing = [offer.name for offer in offers.providers if offer.configured and model in offer.models]
    if model == settings.default_model or settings.default_provider in listing:
        return Wish(None, settings.default_provider, model)
    if listing:
        return Wish(None, listing[0], model)
    raise ThroughlineError(
        ErrorCode.UNKNOWN_PROVIDER, f"model: there is no agent and no model {model!r}; GET /openai/v1/models lists them"
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None

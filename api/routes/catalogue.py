"""What may be chosen: the models and tools that the workers offer."""

from litestar import Router, get

from api.auth import authenticate
from api.routes.injection import Process
from api.routes.refusals import refusals
from common.model.answers import Page
from common.store.catalogue import ProviderOffer, ToolOffer, select_offers


@get("/models", responses=refusals())
async def list_models(resources: Process) -> Page[ProviderOffer]:
    """Lists providers with their models, and what each lacks to be used. Other models of a provider may be named."""
    return Page(data=(await select_offers(resources.pool)).providers)


@get("/tools", responses=refusals())
async def list_tools(resources: Process) -> Page[ToolOffer]:
    """Lists tools."""
    return Page(data=(await select_offers(resources.pool)).tools)


catalogue = Router("/v1", guards=[authenticate], tags=["Catalogue"], route_handlers=[list_models, list_tools])

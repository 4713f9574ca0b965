"""Tickets: for streams and sockets of clients that can send no headers."""

from litestar import Router, post
from litestar.params import JSONBody

from api.auth import authenticate
from api.commands.tickets import mint_ticket
from api.routes.injection import Asker, Process
from api.routes.refusals import refusals
from common.model.answers import Ticket
from common.model.requests import NewTicket


@post("/", responses=refusals(404, 413, 415), opt={"reads": True})
async def create_ticket(resources: Process, principal: Asker, data: JSONBody[NewTicket]) -> Ticket:
    """Mints a ticket for the stream of a run or a conversation, or the socket of a document: `?ticket=`, first used
    before `expiresAt`.
    """
    return await mint_ticket(resources, principal, data)


tickets = Router("/v1/tickets", guards=[authenticate], tags=["Tickets"], route_handlers=[create_ticket])

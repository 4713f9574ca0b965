"""How the OpenAPI document lists the errors of a route."""

from collections.abc import Mapping
from http import HTTPStatus

from litestar.openapi.datastructures import ResponseSpec

from api.errors import STATUS
from common.model.answers import ErrorAnswer

_OF_EVERY_ROUTE = (400, 401, 403, 429, 503)
_OF_EVERY_BODY = (408, 413, 415)


def refusals(*statuses: int) -> Mapping[int, ResponseSpec]:
    """The error answers of a route: `statuses`, and those that any route, and any that takes a body, may give."""
    of_body = () if set(statuses).isdisjoint(_OF_EVERY_BODY) else _OF_EVERY_BODY
    return {
        status: ResponseSpec(ErrorAnswer, generate_examples=False, description=_codes(status))
        for status in sorted({*_OF_EVERY_ROUTE, *of_body, *statuses})
    }


def _codes(status: int) -> str:
    codes = ", ".join(f"`{code}`" for code, of_code in STATUS.items() if of_code == status)
    return f"{HTTPStatus(status).phrase}: {codes}"

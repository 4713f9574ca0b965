"""How the OpenAPI document lists the errors of a route."""

from collections.abc import Mapping
from http import HTTPStatus

from litestar.openapi.datastructures import ResponseSpec

from api.errors import STATUS
from common.model.answers import ErrorAnswer

_OF_EVERY_ROUTE = (400, 401, 403, 503)


def refusals(*statuses: int) -> Mapping[int, ResponseSpec]:
    """The error answers of a route: `statuses`, and those that any route may give."""
    return {
        status: ResponseSpec(ErrorAnswer, generate_examples=False, description=_codes(status))
        for status in sorted({*_OF_EVERY_ROUTE, *statuses})
    }


def _codes(status: int) -> str:
    codes = ", ".join(code for code, of_code in STATUS.items() if of_code == status)
    return f"{HTTPStatus(status).phrase}: {codes}"

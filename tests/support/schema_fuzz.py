"""Requests that schemathesis makes of an OpenAPI document, and what it finds wrong with their answers."""

import os
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""For each operation; 0: a few, the same each time."""

_FEW = 3
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_PATIENCE_S = 30


def fuzz(document: dict[str, Any], url: str, headers: dict[str, str], ids: dict[str, str]) -> Counter[str]:
    """Calls every operation with good and bad requests; about half of them are of `ids`, by path parameter.

    Raises a group of what schemathesis says of answers that the document does not promise, one for each operation.
    Gives the number of answers by the first digit of their status.
    """
    schema = schemathesis.openapi.from_dict(_signed_in(document))
    answers, failures = Counter[str](), list[BaseException]()
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(headers)
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()

            @_settings()
            @given(case=_cases(operation, ids))
            def call(case: Any) -> None:
                answer = case.call(base_url=url, session=session, timeout=_PATIENCE_S)
                checks = _CHECKS
                if case.meta.generation.mode is GenerationMode.NEGATIVE:
                    checks = [*_CHECKS, negative_data_rejection]
                case.validate_response(answer, checks=checks)
                answers[f"{answer.status_code // 100}xx"] += 1

            try:
                call()
            except (Exception, FailureGroup) as failure:
                failures.append(failure)
    if failures:
        raise BaseExceptionGroup("answers that the document does not promise", failures)
    return answers


def _signed_in(document: dict[str, Any]) -> dict[str, Any]:
    """Without its word on tokens: `headers` has one, also where a bad request was to go without."""
    paths = {
        path: {method: {**operation, "security": []} for method, operation in methods.items()}
        for path, methods in document["paths"].items()
    }
    return {**document, "paths": paths, "security": []}


def _settings() -> settings:
    return settings(
        max_examples=EXAMPLES or _FEW,
        derandomize=not EXAMPLES,
        database=None,
        phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=bool(EXAMPLES),
    )


def _cases(operation: Any, ids: dict[str, str]) -> st.SearchStrategy[Any]:
    known = {parameter.name: ids[parameter.name] for parameter in operation.path_parameters}
    kinds = []
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        kinds.append(operation.as_strategy(generation_mode=mode))
        if known:
            kinds.append(operation.as_strategy(generation_mode=mode, path_parameters=known))
    return st.one_of(kinds)

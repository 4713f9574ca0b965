"""What handlers ask for besides their parameters: `resources: Process`, `principal: Asker`, `operator: Superuser`."""

from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation

from api.auth import Operator, Principal
from api.resources import Resources

Process = NamedDependency[SkipValidation[Resources]]
Asker = NamedDependency[SkipValidation[Principal]]
Superuser = NamedDependency[SkipValidation[Operator]]


def _resources(state: State) -> Any:
    return state.resources


# Asked for one after the other, for nothing else: Litestar opens a task group for those that could wait side by side.
def _principal(request: Request[Principal, Any, State], resources: Process) -> Any:
    return request.user


def _operator(request: Request[Operator, Any, State], resources: Process) -> Any:
    return request.user


DEPENDENCIES = {
    "resources": Provide(_resources, sync_to_thread=False),
    "principal": Provide(_principal, sync_to_thread=False),
    "operator": Provide(_operator, sync_to_thread=False),
}

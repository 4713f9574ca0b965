"""What stands in the queue is data: whoever can write to Redis gets no code to run."""

import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from common.queue import deserialize, serialize

ran: list[str] = []


def run() -> None:
    ran.append("by pickle")


class Malice:
    """Runs something while it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return run, ()


def test_job_is_read_as_it_was_written() -> None:
    """Ids and numbers come back as they are."""
    job: dict[str, Any] = {"f": "start_run", "a": ["an id"], "t": 7}

    assert deserialize(serialize(job)) == job


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_job_is_refused_unrun(protocol: int) -> None:
    """Nothing of it is carried out."""
    data = pickle.dumps({"f": Malice()}, protocol)
    pickle.loads(data)
    assert ran == ["by pickle"], "it would run, if somebody unpickled it"
    ran.clear()

    with pytest.raises(msgspec.MsgspecError):
        deserialize(data)

    assert ran == []

"""openai-node, unmodified, against a whole system, and against the recorded streams."""

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from tests.clients.node import node_script
from tests.clients.openai_clients import key_of, openai_url, planned, programs
from tests.support.golden_responses import CASES, FOLDER, golden_of
from tests.support.system import Client, running_system
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def someone() -> AsyncIterator[Client]:
    """A member of a workspace, in a system with one API and one worker."""
    async with running_system(forked=True) as system:
        api = await system.api()
        await system.worker()
        yield await system.client(api)


async def test_application_sees_one_response_in_all_ways(someone: Client) -> None:
    """create, stream, replay and retrieve agree; refusals are the SDK's errors; a conversation goes on."""
    env = {
        "BASE_URL": openai_url(someone.url),
        "API_KEY": key_of(someone),
        "MODEL": planned(steps=1, tools="look", words=5),
    }
    async with node_script("openai_node", "tour.mjs", env) as script:
        tour = await script.next("tour", 60)
    assert tour["plain"]["status"] == "completed"
    assert tour["plain"]["text"] == "Echo from agent: hello there"
    assert tour["streamed"]["types"] == ["message", "mcp_call", "message"]
    assert tour["streamed"] == tour["replayed"] == tour["retrieved"]
    assert tour["words"] == tour["streamed"]["text"] != ""
    assert tour["done"] == tour["output"]
    assert tour["conversations"][0] == tour["conversations"][1]
    assert tour["slow"] == ["queued", "cancelled"]
    assert "echo/echo" in tour["models"]
    assert tour["one"] == "echo/echo"
    assert [(refusal["name"], refusal["param"], refusal["code"]) for refusal in tour["refusals"]] == [
        ("BadRequestError", "tools", "invalid_request"),
        ("BadRequestError", "model", "model_not_found"),
        ("NotFoundError", None, "not_found"),
    ]


async def test_stream_goes_on_after_the_network_was_cut(someone: Client) -> None:
    """Cut twice in mid-stream: numbers go on, no letter is missing, none comes twice."""
    host, _, port = someone.url.removeprefix("http://").partition(":")
    async with TcpProxy((host, int(port))) as proxy:
        env = {
            "BASE_URL": openai_url(f"http://{host}:{proxy.port}"),
            "API_KEY": key_of(someone),
            "MODEL": planned(steps=1, words=40, pause_ms=30),
        }
        async with node_script("openai_node", "resume.mjs", env) as script:
            for _ in range(2):
                await script.next("flowing", 60)
                proxy.switch(Mode.RESET, new=False)
            completed = await script.next("completed", 60)
    assert completed["breaks"] == 2
    assert completed["numbers"] == sorted(set(completed["numbers"]))
    assert completed["text"] == completed["final"] != ""


async def test_recorded_streams_are_accepted_by_the_stream_helper() -> None:
    """It checks indexes, ids and what is left open; what it holds in the end is the last response's output."""
    async with node_script("openai_node", "accumulate.mjs", {"GOLDEN": str(FOLDER)}) as script:
        results = (await script.next("accumulated"))["results"]
    assert sorted(results) == [f"{case}.sse" for case in CASES]
    for case in CASES:
        last = msgspec.json.decode(golden_of(case).decode().removesuffix("\n\n").rpartition("\ndata: ")[2])
        assert results[f"{case}.sse"]["status"] == last["response"]["status"]
        held = [item["id"] for item in results[f"{case}.sse"]["output"]]
        assert held == [item["id"] for item in last["response"]["output"]]


@pytest.mark.parametrize("program", programs("js"))
async def test_programs_of_the_documentation_run_as_they_stand(someone: Client, program: str) -> None:
    """Each is complete, and ends without an error."""
    env = {"OPENAI_BASE_URL": openai_url(someone.url), "OPENAI_API_KEY": key_of(someone), "PROGRAM": program}
    async with node_script("openai_node", "example.mjs", env) as script:
        await script.next("ended")

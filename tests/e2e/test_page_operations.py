"""The operators' page: what goes on now, and failed runs that are started again, in a real browser."""

import re
from uuid import UUID

import pytest
from playwright.async_api import Browser, Route, expect

from common.ids import new_id
from tests.e2e.conftest import Running
from tests.support.api_client import make_token
from tests.support.browser import visitor
from tests.support.system import SECRET, Client

_REMOVE_DETAILS = (
    "update runs set details_removed_at = now(), instructions = '', tools = '{}', settings = '{}' where id = $1"
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_operator_sees_what_goes_on_and_starts_a_failed_run_again(
    browser: Browser, running: Running, someone: Client
) -> None:
    """The worker and its runs as they are, a failure within seconds; asked twice, its run is begun anew, once."""
    failed = await someone.start(provider="echo", model="echo?fail=rejected")
    await someone.state_is(failed, "failed")
    slow = await someone.start("hello " * 20, provider="echo", model="echo?delayMs=1000&repeat=20")
    await someone.state_is(slow, "running")
    superuser = make_token(SECRET, (someone.workspace_id, "member"), user="olga", is_superuser=True)

    async with visitor(browser, running.api.url, superuser) as visit:
        page = visit.page
        await page.goto(f"{running.api.url}/ops")
        workers = page.get_by_role("table", name="Workers")
        await expect(workers.get_by_role("row").nth(1)).to_contain_text(f":{running.worker.pid}:")
        await expect(workers.get_by_role("row").nth(1)).to_contain_text("working")
        await expect(workers.get_by_role("row").nth(1)).to_contain_text("1 of 400")
        await expect(page.get_by_role("img", name=re.compile(r"^Runs, .*running 1"))).to_be_visible()
        await expect(page.get_by_role("table", name="Workspaces by use")).to_contain_text(str(someone.workspace_id))

        row = page.get_by_role("table", name="Failed runs").get_by_role("row").filter(has_text=failed["id"])
        await expect(row).to_contain_text("provider_rejected")
        await row.get_by_role("button", name=f"Requeue {failed['id']}").focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Start this run again?")
        await dialog.get_by_role("button", name="Leave it").click()
        assert len((await someone.http.get("/v1/runs")).json()["data"]) == 2
        await row.get_by_role("button").click()
        await dialog.get_by_role("button", name="Start again").click()

        await expect(row).to_contain_text("by olga")
        runs = (await someone.http.get("/v1/runs", params={"conversationId": failed["conversationId"]})).json()["data"]
        assert [run["id"] == failed["id"] for run in runs] == [False, True]
        await expect(page.get_by_role("status").nth(1)).to_have_text(
            f"Run {failed['id']} was started again as {runs[0]['id']}."
        )
        await someone.state_is(runs[0], "failed")
        await expect(page.get_by_role("button", name=f"Requeue {runs[0]['id']}")).to_be_visible()
    await someone.http.post(f"/v1/runs/{slow['id']}/cancel")


async def test_run_that_cannot_be_started_again_has_no_button(
    browser: Browser, running: Running, someone: Client
) -> None:
    """Whose details are removed, whose conversation went on or was deleted: the list says which."""
    failed = [await someone.start(provider="echo", model="echo?fail=rejected") for _ in range(4)]
    for run in failed:
        await someone.state_is(run, "failed")
    removed, left, deleted, whole = failed
    await running.system.rows(_REMOVE_DETAILS, UUID(removed["id"]))
    posted = f"/v1/conversations/{left['conversationId']}/messages"
    assert (await someone.http.post(posted, json={"content": "and now?"})).status_code == 202
    assert (await someone.http.delete(f"/v1/conversations/{deleted['conversationId']}")).status_code == 204
    superuser = make_token(SECRET, user="olga", is_superuser=True)

    async with visitor(browser, running.api.url, superuser) as visit:
        await visit.page.goto(f"{running.api.url}/ops")
        rows = visit.page.get_by_role("table", name="Failed runs").get_by_role("row")
        await expect(rows.filter(has_text=whole["id"]).get_by_role("button")).to_be_visible()
        for run, why in ((removed, "details removed"), (left, "went on"), (deleted, "conversation deleted")):
            await expect(rows.filter(has_text=run["id"]).get_by_role("cell").last).to_have_text(why)
            await expect(rows.filter(has_text=run["id"]).get_by_role("button")).to_have_count(0)


async def test_page_says_that_a_token_is_no_superusers(browser: Browser, running: Running) -> None:
    """Whose token lacks the claim is told so, sees no figure, and may sign in with another; a phone is wide enough."""
    member = make_token(SECRET, (new_id(), "owner"), user="alice", is_superuser="true")
    superuser = make_token(SECRET, user="olga", is_superuser=True)
    async with visitor(browser, running.api.url, member, viewport={"width": 390, "height": 844}) as visit:
        page = visit.page
        await page.goto(f"{running.api.url}/ops")
        await expect(page.get_by_role("alert")).to_contain_text("alice is signed in, but no superuser")
        await expect(page.get_by_role("table")).to_have_count(0)

        await page.get_by_label("A superuser's token").fill(superuser)
        await page.keyboard.press("Enter")

        await expect(page.get_by_role("table", name="Workers")).to_be_visible()
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width == 390


async def test_minute_between_minutes_without_runs_is_seen(browser: Browser, running: Running) -> None:
    """A plot shows what was measured in one minute alone, as a line wide enough for eyes."""
    superuser = make_token(SECRET, user="olga", is_superuser=True)
    nothing = dict.fromkeys(("pickupP50Ms", "pickupP95Ms", "firstTokenP50Ms", "firstTokenP95Ms"))

    async def quiet(route: Route) -> None:
        answer = await route.fetch()
        summary = await answer.json()
        await route.fulfill(response=answer, json={**summary, "lastMinute": {**summary["lastMinute"], **nothing}})

    async def one_minute(route: Route) -> None:
        answer = await route.fetch()
        minutes = [{**minute, **nothing} for minute in (await answer.json())["data"]]
        minutes[30]["pickupP50Ms"] = 40
        await route.fulfill(response=answer, json={"data": minutes, "nextCursor": None})

    async with visitor(browser, running.api.url, superuser) as visit:
        await visit.page.route("**/v1/ops/summary", quiet)
        await visit.page.route("**/v1/ops/history", one_minute)
        await visit.page.goto(f"{running.api.url}/ops")
        line = visit.page.get_by_role("img", name=re.compile("^Pickup")).locator("path.line-0")
        await expect(line).to_have_attribute("d", re.compile("^M"))
        box = await line.bounding_box()
        assert box is not None
        assert 2 < box["width"] < 20

"""A stream of POSTs, with and without an Idempotency-Key, that goes on whatever is answered; and what came of each."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from tests.support.planned_model import plan
from tests.support.system import Client, System


class Post:
    """One message: whether it was acknowledged (`run_id`), and each answer's status with the seconds it took."""

    def __init__(self, content: str, key: str | None) -> None:
        self.content = content
        self.key = key
        self.run_id: str | None = None
        self.answers: list[tuple[int, float]] = []

    @property
    def takes(self) -> list[float]:
        """How long each answer took, in seconds."""
        return [seconds for _, seconds in self.answers]


class Poster:
    """`at_once` people, each of whom posts a message to a conversation that has none yet, and then the next one.

    Every second post has a key, and is repeated now and then until it is acknowledged; the others are sent once.
    """

    def __init__(self, client: Client, conversations: Sequence[str], at_once: int = 4, pause_s: float = 0.05) -> None:
        self.posts: list[Post] = []
        self.wrong: list[str] = []
        """Answers that are neither 202 nor a 503 with Retry-After."""
        self.client = client
        self._free = list(conversations)
        self._turns = count()
        self._refused: deque[tuple[Post, str]] = deque()
        self._at_once = at_once
        self._pause_s = pause_s

    @asynccontextmanager
    async def posting(self) -> AsyncIterator["Poster"]:
        """Posts until left, and then finishes what has a key."""
        stopped = asyncio.Event()
        people = [asyncio.create_task(self._post_on(stopped)) for _ in range(self._at_once)]
        try:
            yield self
            stopped.set()
            await asyncio.gather(*people)
        finally:
            for person in people:
                person.cancel()
            await asyncio.wait(people)

    def acknowledged(self) -> list[Post]:
        """Those that were answered 202."""
        return [post for post in self.posts if post.run_id is not None]

    def statuses(self) -> Counter[int]:
        """How often each status was answered."""
        return Counter(status for post in self.posts for status, _ in post.answers)

    def slowest(self) -> float:
        """The longest that anybody waited for an answer, in seconds."""
        return max(seconds for post in self.posts for seconds in post.takes)

    async def lost(self, system: System) -> list[str]:
        """Acknowledged messages and runs that Postgres does not have once, or that did not complete; and messages that
        a key should have made one.
        """
        rows = await system.rows("select id, content from messages where role = 'user'")
        times = Counter(row["content"] for row in rows)
        rows = await system.rows(
            "select r.id, r.state, m.content from runs r join messages m on m.id = r.trigger_message_id"
        )
        runs = {str(row["id"]): (row["state"], row["content"]) for row in rows}
        problems = []
        for post in self.posts:
            if post.run_id is not None and runs.get(post.run_id) != ("completed", post.content):
                problems.append(f"{post.content}: acknowledged, and Postgres has {runs.get(post.run_id)}")
            if times[post.content] > 1 or (post.run_id and times[post.content] != 1):
                problems.append(f"{post.content}: stored {times[post.content]} times, answers {post.answers}")
            if post.key is not None and post.run_id is None:
                problems.append(f"{post.content}: never acknowledged, answers {post.answers}")
        return problems

    async def stored_unanswered(self, system: System) -> int:
        """How many posts were refused and are stored all the same: the reply to their COMMIT was lost."""
        stored = {row["content"] for row in await system.rows("select content from messages where role = 'user'")}
        return sum(post.run_id is None and post.content in stored for post in self.posts)

    async def _post_on(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set() or self._refused:
            repeats = stopped.is_set() or not self._free or next(self._turns) % 3 == 0
            if repeats and self._refused:
                await self._send(*self._refused.popleft())
            elif self._free and not stopped.is_set():
                number = len(self.posts)
                post = Post(f"message {number}", f"key-{number}" if number % 2 else None)
                self.posts.append(post)
                await self._send(post, self._free.pop())
            await asyncio.sleep(self._pause_s)

    async def _send(self, post: Post, conversation: str) -> None:
        headers = {"idempotency-key": post.key} if post.key else {}
        body = {"content": post.content, "provider": "anthropic", "model": plan(steps=1, tools="charge", words=5)}
        path = f"/v1/conversations/{conversation}/messages"
        began = time.monotonic()
        answer = await self.client.http.post(path, json=body, headers=headers)
        post.answers.append((answer.status_code, time.monotonic() - began))
        if answer.status_code == 202:
            post.run_id = str(answer.json()["run"]["id"])
        elif answer.status_code != 503 or "retry-after" not in answer.headers:
            self.wrong.append(f"{answer.status_code} {answer.headers} {answer.text}")
        elif post.key is not None:
            self._refused.append((post, conversation))

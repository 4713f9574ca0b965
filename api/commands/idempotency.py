"""`Idempotency-Key`: the same request again gets the first answer again, byte for byte."""

import hashlib
import re
from typing import NamedTuple

import msgspec

from api.auth import Principal
from api.errors import invalid
from common.errors import ErrorCode, ThroughlineError
from common.model.messages import Run
from common.store.database import Connection
from common.store.idempotency_keys import KeptAnswer, insert_key, update_key_answer

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Once(NamedTuple):
    """A request that is to be carried out once. Without a key, every time."""

    user: str
    key: str | None
    request_hash: bytes

    async def begin(self, connection: Connection) -> KeptAnswer | None:
        """First in the transaction: the answer of before, if any. Raises `idempotency_key_reused`."""
        if self.key is None:
            return None
        kept = await insert_key(connection, self.user, self.key, self.request_hash)
        if kept is not None and kept.request_hash != self.request_hash:
            raise ThroughlineError(
                ErrorCode.IDEMPOTENCY_KEY_REUSED, "This Idempotency-Key was used for another request."
            )
        return kept

    async def keep(self, connection: Connection, run: Run | None, answer: bytes) -> None:
        """Last in the transaction: the answer, for those who ask again."""
        if self.key is not None:
            await update_key_answer(connection, self.user, self.key, None if run is None else run.id, answer)


def once(principal: Principal, key: str | None, intention: str, *request: object) -> Once:
    """`request` is all that makes this request what it is. Raises `invalid_request` for a malformed key."""
    if key is not None and not _KEY.fullmatch(key):
        raise invalid("Idempotency-Key: 1 to 255 visible ASCII characters")
    return Once(principal.user, key, hashlib.sha256(msgspec.json.encode((intention, *request))).digest())

"""What a workspace, and each user in it, may use at most."""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """0 is no limit. Those of `user_` hold for each user of the workspace, the others for all of them together.

    A burst is how many requests may come at once; with 0 it is as many as may come in a second.
    """

    requests_per_s: int
    requests_burst: int
    user_requests_per_s: int
    user_requests_burst: int
    queued_runs: int
    user_queued_runs: int
    running_runs: int
    tokens_per_day: int
    user_tokens_per_day: int
    streams: int
    user_streams: int
    sockets: int
    user_sockets: int
    tool_calls_per_step: int
    tool_calls_per_run: int

"""What `throughline dev` prints once the system is up."""

_TEXT = """
Throughline is ready at {address}

Open this in a browser:

{address}/#token={token}

A development token (user {user}, workspace {workspace}):

{token}

Without a browser, paste this into another terminal:

TOKEN={token}
CONVERSATION=$(curl -s {address}/v1/conversations -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' -d '{{"provider": "echo", "model": "echo?delayMs=50"}}' \\
  | sed -n 's/.*"id": *"\\([^"]*\\)".*/\\1/p')
curl -N {address}/v1/conversations/$CONVERSATION/messages -H "Authorization: Bearer $TOKEN" \\
  -H 'Accept: text/event-stream' -H 'Content-Type: application/json' \\
  -d '{{"content": "Every word of this sentence comes back as an event of its own."}}'

Interrupt it in the middle, then go on exactly where it stopped, with the last `id:` that you saw:

curl -N {address}/v1/conversations/$CONVERSATION/stream -H "Authorization: Bearer $TOKEN" \\
  -H 'Last-Event-ID: <id>'

Ctrl-C stops everything.
"""


def welcome(*, address: str, token: str, user: str, workspace: str) -> str:
    """The address, a link that signs a browser in, a token, and commands to paste.

    The link's token stands in its fragment, which browsers send to nobody.
    """
    return _TEXT.format(address=address, token=token, user=user, workspace=workspace)

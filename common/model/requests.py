"""What clients send: bodies of the HTTP contract. A field that is not listed is refused; text may be empty unless
bounded. In a change, an absent field (UNSET) stays as it is and null clears."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.model.messages import AgentSettings
from common.model.run_state import Priority

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Title = Annotated[str, Meta(max_length=200)]
ProviderName = Annotated[str, Meta(min_length=1, max_length=40, description="One of `GET /v1/models`.")]
ModelName = Annotated[
    str, Meta(min_length=1, max_length=200, description="The provider's name for it; need not be listed.")
]
ToolName = Annotated[str, Meta(min_length=1, max_length=64)]
ToolNames = Annotated[
    list[ToolName], Meta(max_length=128, description="Of `GET /v1/tools`; the model sees no others. Empty: none.")
]
Content = Annotated[str, Meta(min_length=1)]
StepLimit = Annotated[
    int, Meta(ge=1, le=100, description="How often the model may be asked in one run; then it ends with `step_limit`.")
]
# Unset rather than its default: a request that names none reads the same, and bears the same hash, as it always did.
PriorityChoice = (
    Annotated[
        Priority,
        Meta(description="`background` for what nobody waits for: interactive runs go first. Absent: `interactive`."),
    ]
    | UnsetType
)

DEFAULT_MAX_STEPS = 20


class _Request(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    pass


class NewAgent(_Request, kw_only=True):
    """`POST /v1/agents`"""

    name: Name
    instructions: str | None = None
    provider: ProviderName | None = None
    model: ModelName | None = None
    tools: ToolNames = msgspec.field(default_factory=list)
    max_steps: StepLimit = DEFAULT_MAX_STEPS
    settings: AgentSettings = msgspec.field(default_factory=AgentSettings)

    def __post_init__(self) -> None:
        self.tools = list(dict.fromkeys(self.tools))


class AgentChange(_Request, kw_only=True):
    """`PATCH /v1/agents/{id}`; `tools` and `settings` are replaced as a whole."""

    name: Name | UnsetType = UNSET
    instructions: str | None | UnsetType = UNSET
    provider: ProviderName | None | UnsetType = UNSET
    model: ModelName | None | UnsetType = UNSET
    tools: ToolNames | None | UnsetType = UNSET
    max_steps: StepLimit | None | UnsetType = UNSET
    settings: AgentSettings | None | UnsetType = UNSET

    def __post_init__(self) -> None:
        if isinstance(self.tools, list):
            self.tools = list(dict.fromkeys(self.tools))


class NewConversation(_Request, kw_only=True):
    """`POST /v1/conversations`"""

    title: Title | None = None
    agent_id: UUID | None = None
    provider: ProviderName | None = None
    model: ModelName | None = None
    system_prompt: str | None = None


class ConversationChange(_Request, kw_only=True):
    """`PATCH /v1/conversations/{id}`"""

    title: Title | None | UnsetType = UNSET
    agent_id: UUID | None | UnsetType = UNSET
    provider: ProviderName | None | UnsetType = UNSET
    model: ModelName | None | UnsetType = UNSET
    system_prompt: str | None | UnsetType = UNSET
    pinned: Annotated[bool, Meta(description="Sets `pinnedAt`, or clears it.")] | None | UnsetType = UNSET
    archived: Annotated[bool, Meta(description="Sets `archivedAt`, or clears it.")] | None | UnsetType = UNSET


class NewMessage(_Request, kw_only=True):
    """`POST /v1/conversations/{id}/messages`. Only a user's message starts a run."""

    content: Content
    role: Annotated[
        Literal["user", "assistant", "system"],
        Meta(
            description="Whose message it is. Only a user's starts a run; the others are stored for the model to read."
        ),
    ] = "user"
    agent_id: Annotated[UUID | None, Meta(description="For this message's run; else the conversation's.")] = None
    provider: ProviderName | None = None
    model: ModelName | None = None
    run: Annotated[bool, Meta(description="False: stores the message, and starts no run.")] = True
    if_busy: Annotated[
        Literal["reject", "enqueue", "interrupt"],
        Meta(
            description="While another run has not ended: `reject` answers 409, `enqueue` lets this one wait its turn, "
            "`interrupt` cancels the others first."
        ),
    ] = "reject"
    priority: PriorityChoice = UNSET


class MessageEdit(_Request, kw_only=True):
    """`PUT /v1/conversations/{id}/messages/{messageId}`"""

    content: Annotated[Content, Meta(description="Becomes `editedContent`.")]


class Regeneration(_Request, kw_only=True):
    """`POST /v1/conversations/{id}/messages/{messageId}/regenerate`"""

    agent_id: UUID | None = None
    provider: ProviderName | None = None
    model: ModelName | None = None
    if_busy: Annotated[
        Literal["reject", "interrupt"],
        Meta(description="While a run has not ended: `reject` answers 409, `interrupt` cancels it first."),
    ] = "reject"
    priority: PriorityChoice = UNSET


class NewTicket(_Request, kw_only=True):
    """`POST /v1/tickets`: exactly one of the three."""

    run_id: UUID | None = None
    conversation_id: UUID | None = None
    document_id: UUID | None = None

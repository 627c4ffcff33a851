"""Fields of others that would change any prompt, of a conversation or as it stands."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from opsin.serve.budget_fields import BudgetFields
from opsin.serve.fields import unbuilt

CacheSalt = Annotated[str, Meta(max_length=256, description="Prompts of another one share no cache with this.")]


class PromptFields(BudgetFields, kw_only=True):
    """Of these, only how finely pictures are looked at and `cache_salt` are built."""

    mm_processor_kwargs: Annotated[Any, unbuilt({}, send="min_pixels and max_pixels beside it")] = None
    truncate_prompt_tokens: Annotated[Any, unbuilt()] = None
    truncate: Annotated[Any, unbuilt()] = None
    system: Annotated[Any, unbuilt("", send='a message of the role "system"')] = None
    instructions: Annotated[Any, unbuilt("", send='a message of the role "system"')] = None
    input: Annotated[Any, unbuilt("", [], send="messages, or a prompt")] = None
    inputs: Annotated[Any, unbuilt("", [], send="messages, or a prompt")] = None
    template: Annotated[Any, unbuilt("")] = None
    options: Annotated[Any, unbuilt({}, send="what is in it beside it")] = None
    extra_body: Annotated[Any, unbuilt({}, send="what is in it beside it")] = None
    parameters: Annotated[Any, unbuilt({}, send="what is in it beside it")] = None
    num_ctx: Annotated[Any, unbuilt()] = None
    lora: Annotated[Any, unbuilt([])] = None
    adapter_id: Annotated[Any, unbuilt("")] = None
    cache_salt: CacheSalt | None = None


def salt_of(salt: str | None, tenant: str) -> bytes:
    """What keeps the caches of one key's owner apart from others', and within them those of a request's salt."""
    return f"{tenant} {salt}".encode() if salt else tenant.encode()


def is_of(salt: bytes, tenant: str) -> bool:
    """Whether it is one that `salt_of` made for this key's owner."""
    return salt.partition(b" ")[0] == tenant.encode()

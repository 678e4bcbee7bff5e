"""The operations about users, organisations and what they are connected with.

See `operations.py`, which has the others and what holds for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from headgate.codegen.caller import Caller
from headgate.codegen.errors import NotFoundError, ServerError
from headgate.codegen.inputs import GenerateTokenRequest, checked, number_of, page_query
from headgate.codegen.models import (
    CLIRulesResponse,
    GenerateTokenResponse,
    OAuthProviderResponse,
    OrganizationIntegrationsResponse,
    OrganizationResponse,
    Page,
    UserResponse,
)

__all__ = ["AccountOperations", "Id"]

Id = int | str
M = TypeVar("M", bound=pydantic.BaseModel)

_PROVIDERS = pydantic.TypeAdapter(list[OAuthProviderResponse])


class AccountOperations:
    """Users, organisations, integrations, rules, providers, tokens."""

    _caller: Caller

    # ── users and organisations ─────────────────────────────────────────────────────────────────

    async def get_current_user(self, *, fresh: bool = False) -> UserResponse:
        """The user whose token this is."""
        return await self._caller.ask(UserResponse, "get_current_user", fresh=fresh)

    async def get_user(
        self, /, org_id: Id, user_id: Id, *, fresh: bool = False, **limits: Any
    ) -> UserResponse:
        """One user of an organisation."""
        values = {"org_id": number_of(org_id, "org_id"), "user_id": number_of(user_id, "user_id")}
        return await self._caller.ask(
            UserResponse, "get_user", owner=values["org_id"], values=values, fresh=fresh, **limits
        )

    async def get_users(
        self, org_id: Id, skip: int = 0, limit: int = 100, *, fresh: bool = False
    ) -> Page[UserResponse]:
        """A page of an organisation's users."""
        return await self._page(
            Page[UserResponse], "get_users", org_id, page_query(skip, limit), fresh=fresh
        )

    async def get_organizations(
        self, skip: int = 0, limit: int = 100, *, fresh: bool = False
    ) -> Page[OrganizationResponse]:
        """A page of the organisations the user belongs to."""
        query = page_query(skip, limit)
        return await self._caller.ask(
            Page[OrganizationResponse], "get_organizations", query=query, fresh=fresh
        )

    async def get_organization(
        self, org_id: Id | None = None, *, fresh: bool = False
    ) -> OrganizationResponse:
        """One organisation, by default that of the configuration.

        The API has no operation for it: its list is paged through. Raises `NotFoundError`.
        """
        wanted = number_of(self._caller.config.org_id if org_id is None else org_id, "org_id")
        skip, total = 0, 1
        while skip < total:
            page = await self.get_organizations(skip, fresh=fresh)
            for organization in page.items:
                if organization.id == wanted:
                    return organization
            skip, total = skip + len(page.items), page.total if page.items else 0
        raise NotFoundError(
            f"This token's user belongs to no organisation {wanted}.", "org", str(wanted),
            endpoint="get_organizations",
        )  # fmt: skip

    # ── connections ────────────────────────────────────────────────────────────────────────────────

    async def get_integrations(
        self, org_id: Id, *, fresh: bool = False
    ) -> OrganizationIntegrationsResponse:
        """The integrations of an organisation."""
        number = number_of(org_id, "org_id")
        return await self._caller.ask(
            OrganizationIntegrationsResponse, "get_integrations", owner=number,
            values={"org_id": number}, fresh=fresh,
        )  # fmt: skip

    async def get_cli_rules(self, org_id: Id, *, fresh: bool = False) -> CLIRulesResponse:
        """The organisation's rules and the user's own prompt."""
        number = number_of(org_id, "org_id")
        return await self._caller.ask(
            CLIRulesResponse, "get_cli_rules", owner=number, values={"org_id": number}, fresh=fresh
        )

    async def get_mcp_providers(self, *, fresh: bool = False) -> list[OAuthProviderResponse]:
        """Providers one can connect to."""
        data = await self._caller.ask_json("get_mcp_providers", fresh=fresh)
        try:
            return _PROVIDERS.validate_python(data)
        except pydantic.ValidationError:
            pass
        raise ServerError(
            "get_mcp_providers: the answer is not the list of providers that the API promises.",
            200, endpoint="get_mcp_providers", kind="protocol",
        )  # fmt: skip

    async def get_oauth_token_status(self, org_id: Id, *, fresh: bool = False) -> Any:
        """The providers that are connected. The API does not say in which form."""
        number = number_of(org_id, "org_id")
        return await self._caller.ask_json(
            "get_oauth_token_status", owner=number, query={"org_id": str(number)}, fresh=fresh
        )

    async def revoke_oauth_token(self, provider: str, org_id: Id) -> Any:
        """Disconnect a provider. The API does not say in which form it answers."""
        number = number_of(org_id, "org_id")
        return await self._caller.ask_json(
            "revoke_oauth_token", owner=number, query={"provider": provider, "org_id": str(number)}
        )

    async def generate_slack_connect_token(self, org_id: Id) -> GenerateTokenResponse:
        """A token that connects a Slack account: valid for ten minutes, once."""
        request = checked(GenerateTokenRequest, {"org_id": number_of(org_id, "org_id")})
        return await self._caller.ask(
            GenerateTokenResponse, "generate_slack_connect_token", owner=request.org_id,
            body=request.body(),
        )  # fmt: skip

    async def _page(
        self, model: type[M], name: str, org_id: Id, query: Mapping[str, str], **how: Any
    ) -> M:
        number = number_of(org_id, "org_id")
        values = {"org_id": number}
        return await self._caller.ask(model, name, owner=number, values=values, query=query, **how)

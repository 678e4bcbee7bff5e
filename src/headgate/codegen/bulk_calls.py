"""The bulk operations of the client: users, runs, and whatever a caller brings."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from headgate.codegen.bulk import BulkOperationConfig, BulkOperationResult, BulkRun
from headgate.codegen.caller import Caller
from headgate.codegen.errors import CodegenAPIError, ConflictError
from headgate.codegen.inputs import CreateAgentRunRequest, checked, number_of, refused, shielded
from headgate.codegen.journal import MARK, Journal
from headgate.codegen.models import AgentRunResponse, Page, UserResponse
from headgate.codegen.operations import Id, Operations
from headgate.codegen.pagination import paged

__all__ = ["BulkCalls"]

T = TypeVar("T")
R = TypeVar("R")

_A_DAY = 86_400.0  # seconds that the API's clock may be off ours


class BulkCalls(Operations):
    """Bulk operations on top of the single ones."""

    _caller: Caller

    async def bulk_get_users(
        self,
        org_id: Id,
        user_ids: Iterable[Id] | AsyncIterable[Id],
        config: BulkOperationConfig | None = None,
    ) -> BulkOperationResult[UserResponse]:
        """Users by id. One that fails is in `errors`, the others in `results`, in order."""
        number, how = number_of(org_id, "org_id"), self._bulk_config(config)

        async def one(_: int, user_id: Id) -> UserResponse:
            return await self.get_user(number, user_id, **_limits(how))

        return await self._bulk(user_ids, one, how)

    async def bulk_create_agent_runs(
        self,
        org_id: Id,
        run_configs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        config: BulkOperationConfig | None = None,
        *,
        journal: str | Path | None = None,
    ) -> BulkOperationResult[AgentRunResponse]:
        """Start runs, each from `prompt` and the other arguments of `create_agent_run`.

        Args:
            journal: a file that remembers what was created. Called again with the same list and the
                same file, after a crash or a failure, it creates what is missing and nothing twice.
                Each run's metadata then names journal and item, under `headgate_bulk`.
        """
        number, how = number_of(org_id, "org_id"), self._bulk_config(config)
        if journal is None:
            kept: Any = nullcontext()
        else:
            kept = Journal(journal, number, self._caller.clock.wall())
        with kept as book:
            known = {} if book is None else await self._found(number, book)

            async def one(index: int, item: Mapping[str, Any]) -> AgentRunResponse:
                if book is None:
                    return await self.create_agent_run(number, **_request(item), **_limits(how))
                return await self._create_once(number, index, item, book, known, how)

            return await self._bulk(run_configs, one, how)

    async def bulk_operation(
        self,
        items: Iterable[T] | AsyncIterable[T],
        operation: Callable[[T], Awaitable[R]],
        config: BulkOperationConfig | None = None,
    ) -> BulkOperationResult[R]:
        """Any coroutine function over any items. It is called once per item: retries are its own."""

        async def one(_: int, item: T) -> R:
            return await operation(item)

        return await self._bulk(items, one, self._bulk_config(config))

    # ── creating once ───────────────────────────────────────────────────────────────────────────

    async def _create_once(
        self,
        org_id: int,
        index: int,
        item: Mapping[str, Any],
        book: Journal,
        known: Mapping[int, bool],
        how: BulkOperationConfig,
    ) -> AgentRunResponse:
        """The run of an item: the one there is, or a new one.

        Args:
            known: of items that may have been created: whether they surely were not.
        """
        request = _request(item)
        book.check(index, request)
        if index in book.created:
            return AgentRunResponse.model_validate(book.created[index])
        if known.get(index) is False:
            raise ConflictError(
                f"Item {index} may have been created before, and the list of runs does not tell. Look "
                "for it; create it anew without the journal if it is not there.",
                kind="uncertain",
            )
        request["metadata"] = {**(request.get("metadata") or {}), MARK: book.mark(index)}
        told = False

        def on_send() -> None:
            nonlocal told
            if not told:
                book.sending(index, _request(item))
                told = True

        try:
            run = await self.create_agent_run(org_id, **request, **_limits(how), on_send=on_send)
        except CodegenAPIError as error:
            if told:
                book.refused(index) if _surely_not(error) else book.unknown(index)
            raise
        book.made(index, run.raw or run.model_dump(mode="json"))
        return run

    async def _found(self, org_id: int, book: Journal) -> dict[int, bool]:
        """Looks for items that may have been created. Those found are noted; of the others, whether
        they surely were not."""
        wanted = {book.mark(index): index for index in book.uncertain}
        if not wanted:
            return {}
        told = False  # whether the list shows metadata at all
        empty = True

        async def page(skip: int, limit: int) -> Page[AgentRunResponse]:
            return await self.list_agent_runs(org_id, skip=skip, limit=limit, fresh=True)

        async for run in paged(page, lambda run: run.id):
            empty = False
            told = told or run.metadata is not None
            index = wanted.pop(str((run.metadata or {}).get(MARK)), None)
            if index is not None:
                book.made(index, run.raw or run.model_dump(mode="json"))
            moment = run.created
            if not wanted or (moment and moment.timestamp() < book.begun - _A_DAY):
                break
        return dict.fromkeys(wanted.values(), told or empty)

    # ── shapes they share ───────────────────────────────────────────────────────────────────────

    async def _bulk(
        self,
        items: Iterable[T] | AsyncIterable[T],
        operation: Callable[[int, T], Awaitable[R]],
        config: BulkOperationConfig,
    ) -> BulkOperationResult[R]:
        self._caller.require("bulk_operations")
        result = await BulkRun[T, R](config, self._caller.clock).over(items, operation)
        self._bulk_done(result)
        return result

    def _bulk_done(self, result: BulkOperationResult[Any]) -> None:
        """For the summary."""

    def _bulk_config(self, config: BulkOperationConfig | None) -> BulkOperationConfig:
        settings = self._caller.config
        return config or BulkOperationConfig(
            max_workers=settings.bulk_max_workers, batch_size=settings.bulk_batch_size
        )


def _limits(config: BulkOperationConfig) -> dict[str, Any]:
    return {
        "retries": config.max_retries,
        "timeout": config.timeout_per_operation,
        "first_delay": config.retry_delay,
    }


_ARGUMENTS = {*CreateAgentRunRequest.model_fields, "redact"}


def _request(item: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one run, checked. Raises the door's `ValidationError`."""
    if not isinstance(item, Mapping):
        raise refused({"run_configs": ["takes mappings with a prompt"]})
    if unknown := set(item) - _ARGUMENTS:
        raise refused({str(name): ["is no argument of a run"] for name in sorted(unknown, key=str)})
    values = {name: value for name, value in item.items() if name != "redact"}
    values["prompt"] = shielded(values.get("prompt"), bool(item.get("redact")))
    return checked(CreateAgentRunRequest, values).body()


def _surely_not(error: CodegenAPIError) -> bool:
    """Whether the API cannot have created it: nothing was sent, or it refused."""
    return not error.sent or (error.status_code is not None and 400 <= error.status_code < 500)

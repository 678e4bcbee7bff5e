"""The model list of the Gemini API: how it is asked for, and what it tells of a model. No sockets.

A `Model` object tells names, version, limits and the methods it answers to; no price, no date, and of
what a model can do only what its methods show.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from headgate.core.errors import InvalidCallError
from headgate.core.model_card import ModelCapabilities, ModelMetadata
from headgate.core.outcome import Kind, Outcome
from headgate.core.ports import Request
from headgate.providers.gemini import API_VERSION

__all__ = ["ModelPage", "get_request", "list_request", "read_model", "read_page"]

_PAGE = 1000
"""Models to a page, the most the API gives."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_TOKEN = re.compile(r"[A-Za-z0-9_=-]{1,2048}")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Model(Struct, rename="camel"):
    name: str
    version: str = ""
    display_name: str = ""
    description: str = ""
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    supported_generation_methods: list[str] | None = None
    top_k: float | None = None


class _Page(Struct, rename="camel"):
    models: list[_Model] = []
    next_page_token: str = ""


class ModelPage(Struct, frozen=True):
    """A page of the list. `next_token` is empty on the last."""

    cards: tuple[ModelMetadata, ...]
    next_token: str


_DECODE_MODEL = msgspec.json.Decoder(_Model, strict=False)
_DECODE_PAGE = msgspec.json.Decoder(_Page, strict=False)


def list_request(base_url: str, token: str = "") -> Request:
    """Ask for a page of the list; it costs no quota. Raises `ValueError` for a token that is none."""
    if token and not _TOKEN.fullmatch(token):
        raise ValueError("not a page token of this API")
    more = f"&pageToken={token}" if token else ""
    return Request("GET", f"{base_url}/{API_VERSION}/models?pageSize={_PAGE}{more}", {}, b"")


def get_request(base_url: str, model: str) -> Request:
    """Ask for one model; it costs no quota. Raises `InvalidCallError` for what is no name."""
    if not _NAME.fullmatch(model):
        raise InvalidCallError(
            f"{model[:80]!r} is not the name of a model: only letters, digits and `._@-` are."
        )
    return Request("GET", f"{base_url}/{API_VERSION}/models/{model}", {}, b"")


def read_page(body: bytes) -> ModelPage | Outcome:
    """A page of the list, or why it is none."""
    try:
        page = _DECODE_PAGE.decode(body)
    except _UNREADABLE:
        return _no_list("model list")
    return ModelPage(tuple(_card(model) for model in page.models), page.next_page_token)


def read_model(body: bytes) -> ModelMetadata | Outcome:
    """One model, or why it is none."""
    try:
        return _card(_DECODE_MODEL.decode(body))
    except _UNREADABLE:
        return _no_list("model")


def _card(model: _Model) -> ModelMetadata:
    methods = model.supported_generation_methods
    generates = None if methods is None else "generateContent" in methods
    # The API's description of topK: where it is left out, the model takes none.
    takes_no_top_k = generates and model.top_k is None
    return ModelMetadata(
        id=model.name.removeprefix("models/"),
        name=model.display_name,
        description=model.description,
        version=model.version,
        capabilities=ModelCapabilities(
            text_generation=generates,
            context_caching=None if methods is None else "createCachedContent" in methods,
            max_input_tokens=model.input_token_limit or None,
            max_output_tokens=(model.output_token_limit or None) if generates else None,
            supports_top_k=False if takes_no_top_k else None,
        ),
    )


def _no_list(what: str) -> Outcome:
    return Outcome(Kind.PROTOCOL, f"The answer is no {what}; is this the Gemini API?", 200)

"""What a caller may pass as a prompt and as options, made into the engine's words.

Unknown options are a `TypeError` with the nearest known name; what cannot be sent is an
`InvalidCallError` before anything is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path

from headgate.core.call import Blob, Part
from headgate.core.errors import InvalidCallError
from headgate.providers.gemini import EMBED_OPTIONS, GENERATE_OPTIONS, TOP_LEVEL_OPTIONS
from headgate.wiring.calls import unknown_option
from headgate.wiring.media import check_inline, media_type_of

__all__ = ["Prompt", "embed_options", "generate_options", "prompt_parts", "read_blob"]

Media = Blob | bytes | str | PathLike[str]
"""An image or file: bytes, a path, or a `Blob` where the media type must be given."""

Prompt = str | Sequence[str | Blob | bytes | PathLike[str]]
"""A prompt: text, or pieces of text and media in order."""


def prompt_parts(prompt: Prompt, images: object = None, files: object = None) -> tuple[Part, ...]:
    """The parts of a prompt: images and files first, as the API's guide advises, then the text."""
    if images is None and files is None and isinstance(prompt, str):  # nearly always
        return (_text(prompt),) if prompt else ()
    media = [read_blob(item) for item in (*_listed(images, "images"), *_listed(files, "files"))]
    said = [_text(piece) if isinstance(piece, str) else read_blob(piece) for piece in _pieces(prompt)]
    return tuple(part for part in (*media, *said) if part)


def _pieces(prompt: object) -> Iterable[object]:
    if isinstance(prompt, str | Blob | bytes | PathLike):
        return (prompt,)
    if isinstance(prompt, Iterable):
        return prompt
    raise TypeError(
        f"a prompt is text, or a list of text, bytes, paths and Blobs; got {type(prompt).__name__}"
    )


def _text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidCallError(
            "The prompt holds half a surrogate pair, which is no character: decode its source with "
            "errors='replace'."
        ) from None
    return text


def _listed(value: object, name: str) -> Iterable[Media]:
    if value is None:
        return ()
    if isinstance(value, str | bytes | Blob | PathLike):
        return (value,)
    if isinstance(value, Iterable):
        return tuple(value)
    raise TypeError(
        f"{name} takes a path, bytes or a Blob, or a list of them; got {type(value).__name__}"
    )


def read_blob(item: object) -> Blob:
    """An image or file with its media type, sniffed from its first bytes, else from its name."""
    if isinstance(item, Blob):
        blob = item
    elif isinstance(item, bytes | bytearray):
        blob = Blob(media_type_of(bytes(item), "the data"), bytes(item))
    elif isinstance(item, str | PathLike):
        path = Path(fspath(item))
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InvalidCallError(f"Cannot read {path}: {reason}.") from None
        blob = Blob(media_type_of(data, str(path)), data)
    else:
        raise TypeError(f"a prompt takes text, bytes, paths and Blobs; got {type(item).__name__}")
    check_inline(blob)
    return blob


# ── options ─────────────────────────────────────────────────────────────────────────────────────

_GENERATE = {**GENERATE_OPTIONS, **TOP_LEVEL_OPTIONS}


def generate_options(given: Mapping[str, object]) -> dict[str, object]:
    """Options of a generation: by keyword, or together in `generation_config` or `config`."""
    options: dict[str, object] = {}
    for name, value in given.items():
        if name in ("generation_config", "config"):
            for inner, setting in _by_name(name, value).items():
                _put(options, str(inner), setting, _GENERATE, f"{name}[{inner!r}]")
        else:
            _put(options, name, value, _GENERATE, name)
    return options


def _by_name(name: str, value: object) -> Mapping[object, object]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise TypeError(f"{name} takes a dict of options by name; got {type(value).__name__}")


def embed_options(given: Mapping[str, object]) -> dict[str, object]:
    """Options of an embedding."""
    options: dict[str, object] = {}
    for name, value in given.items():
        _put(options, name, value, EMBED_OPTIONS, name)
    return options


def _put(
    options: dict[str, object], name: str, value: object, known: Mapping[str, str], where: str
) -> None:
    if name not in known:
        raise unknown_option(name, known, where)
    if value is None:
        return
    if name in ("response_schema", "response_json_schema") and isinstance(value, type):
        name, value = "response_json_schema", _schema_of(value)
    if name in ("response_schema", "response_json_schema"):
        options.setdefault("response_mime_type", "application/json")
    options[name] = value


def _schema_of(model: type) -> object:
    """The JSON schema of a pydantic model class, or of anything else that offers one the same way."""
    describe = getattr(model, "model_json_schema", None)
    if describe is None:
        raise TypeError(
            f"response_schema takes a schema as a dict or a pydantic model; got {model.__name__}"
        )
    return describe()

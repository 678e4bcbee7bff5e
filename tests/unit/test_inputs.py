"""Prompts, media and options as people pass them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.core.call import Blob
from headgate.core.errors import InvalidCallError
from headgate.gemini.inputs import embed_options, generate_options, prompt_parts, read_blob
from headgate.wiring import media

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"\0\0\0\x18ftypheic....", "image/heic"),
        (b"\0\0\0\x18ftypmif1....", "image/heif"),
        (b"\0\0\0\x18ftypisom....", "video/mp4"),
        (b"%PDF-1.7", "application/pdf"),
        (b"ID3\x04", "audio/mp3"),
        (b"OggS....", "audio/ogg"),
        (b"fLaC....", "audio/flac"),
    ],
)
def test_media_are_known_by_their_first_bytes(data: bytes, mime_type: str, tmp_path: Path) -> None:
    assert read_blob(data) == Blob(mime_type, data)
    assert read_blob(bytearray(data)).mime_type == mime_type
    misnamed = tmp_path / "picture.txt"
    misnamed.write_bytes(data)
    assert read_blob(misnamed).mime_type == mime_type


def test_otherwise_by_their_name(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("plain words", encoding="utf-8")
    assert read_blob(note) == Blob("text/plain", b"plain words")
    assert read_blob(str(note)).mime_type == "text/plain"
    blob = Blob("x/y", b"1")
    assert read_blob(blob) is blob


def test_what_is_not_recognised_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidCallError, match="Blob"):
        read_blob(b"who knows")
    odd = tmp_path / "odd.zzz"
    odd.write_bytes(b"who knows")
    with pytest.raises(InvalidCallError, match=r"odd\.zzz"):
        read_blob(odd)
    with pytest.raises(InvalidCallError, match=r"missing\.png"):
        read_blob(tmp_path / "missing.png")
    with pytest.raises(TypeError, match="int"):
        read_blob(7)


def test_limits_are_the_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (media.INLINE_LIMIT, media.PDF_LIMIT) == (100 * 2**20, 50 * 2**20)
    monkeypatch.setattr(media, "INLINE_LIMIT", 20)
    monkeypatch.setattr(media, "PDF_LIMIT", 10)
    assert read_blob(Blob("image/png", b"x" * 20))
    assert read_blob(Blob("application/pdf", b"x" * 10))
    for mime_type, size in (("image/png", 21), ("application/pdf", 11), ("image/png", 0)):
        with pytest.raises(InvalidCallError, match=f"{size} bytes"):
            read_blob(Blob(mime_type, b"x" * size))


def test_media_come_first_and_text_after_them() -> None:
    parts = prompt_parts("What is it?", images=PNG, files=[Blob("text/plain", b"f")])
    assert [part if isinstance(part, str) else part.mime_type for part in parts] == [
        "image/png",
        "text/plain",
        "What is it?",
    ]


def test_a_list_keeps_its_order() -> None:
    parts = prompt_parts(["a", PNG, "b", Blob("x/y", b"1")])
    assert [part if isinstance(part, str) else part.mime_type for part in parts] == [
        "a",
        "image/png",
        "b",
        "x/y",
    ]


def test_empty_texts_are_left_out() -> None:
    assert prompt_parts("") == ()
    assert prompt_parts(["", "a"]) == ("a",)
    assert prompt_parts([]) == ()


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidCallError, match="surrogate"):
        prompt_parts("\ud800")


@pytest.mark.parametrize("wrong", [7, 1.5, object()])
def test_wrong_types_are_type_errors(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a prompt is text"):
        prompt_parts(wrong)
    with pytest.raises(TypeError, match="images takes"):
        prompt_parts("hi", images=wrong)
    with pytest.raises(TypeError, match="a prompt takes"):
        prompt_parts(["hi", wrong])


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("temprature", "temperature"),
        ("max_tokens", "max_output_tokens"),
        ("system", "system_instruction"),
        ("zzzzzz", "known are"),
    ],
)
def test_an_unknown_option_names_the_nearest(given: str, near: str) -> None:
    with pytest.raises(TypeError, match=near) as caught:
        generate_options({given: 1})
    assert given in str(caught.value)
    with pytest.raises(TypeError, match=f"config.*{given}"):
        generate_options({"config": {given: 1}})


def test_options_that_are_none_are_left_out_and_unknown_ones_are_not() -> None:
    assert generate_options({"temperature": None, "top_p": 0.5}) == {"top_p": 0.5}
    with pytest.raises(TypeError):
        generate_options({"nonsense": None})
    assert embed_options({"title": None}) == {}
    with pytest.raises(TypeError, match="task_type"):
        embed_options({"task": 1})


@pytest.mark.parametrize("name", ["config", "generation_config"])
def test_a_config_that_is_no_dict_is_refused_as_that_and_none_is_none_at_all(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} takes a dict .* got int"):
        generate_options({name: 7})
    assert generate_options({name: None, "top_p": 0.5}) == {"top_p": 0.5}


def test_a_model_class_becomes_its_schema() -> None:
    class Answer:
        @staticmethod
        def model_json_schema() -> dict[str, str]:
            return {"type": "object"}

    assert generate_options({"response_schema": Answer}) == {
        "response_mime_type": "application/json",
        "response_json_schema": {"type": "object"},
    }
    with pytest.raises(TypeError, match="pydantic"):
        generate_options({"response_schema": int})


def test_a_mime_type_given_beside_a_schema_stays() -> None:
    options = generate_options(
        {"response_mime_type": "text/x.enum", "response_schema": {"type": "STRING"}}
    )
    assert options["response_mime_type"] == "text/x.enum"


def test_a_blobs_repr_holds_no_data() -> None:
    assert "secret" not in repr(Blob("text/plain", b"secret"))

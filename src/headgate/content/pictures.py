"""Pictures as they come in and go out: what they are is read from their bytes, never taken on trust.

A picture that is taken in is decoded within bounds of bytes and pixels, loses everything but its pixels
(Exif and its places, profiles, comments, further frames), is turned as its camera meant it, and leaves
as a JPEG of at most 1024 pixels a side.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from headgate.content.problems import RefusedError
from headgate.core.errors import ConfigurationError
from headgate.wiring.media import sniffed

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MOST_IMAGE_BYTES", "as_png", "check_pillow", "prepared"]

MOST_IMAGE_BYTES = 10 * 1024 * 1024
"""Of an upload (S4 §5.6)."""

MOST_PIXELS = 40_000_000
"""Of a decoded picture: 160 MB in memory. Cameras of telephones stay below in their normal modes."""

_FEWER_PIXELS = {"WEBP": 20_000_000}
"""Its decoder holds four copies: 300 MB of these, measured."""

LONGEST_SIDE = 1024
JPEG_QUALITY = 85

BAND_ROWS = 64
"""Of a band, as they are left of it."""

_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""What turns a picture upright, by its orientation (Exif 3.0, section 4.6.5.1.3)."""

_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
}
"""What is taken, and the only decoder that may read it."""

_MALFORMED = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    TypeError, OverflowError, MemoryError, AttributeError, ZeroDivisionError, AssertionError,
    NotImplementedError, RecursionError,
)  # fmt: skip
"""What decoders raise for bytes that are no picture: more than they document."""


def check_pillow() -> None:
    """Raise `ConfigurationError` where the library for pictures is missing."""
    try:
        import PIL.Image  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "The content service needs Pillow: install headgate[content]."
        ) from None


def prepared(data: bytes) -> bytes:
    """An uploaded picture as the model gets it. Takes milliseconds to a second: not for an event loop.

    Raises:
        RefusedError: it is none of the taken kinds (415), too large (413), or broken (400).
    """
    check_kind(data)
    with _opened(data) as picture:
        try:
            small = _small(picture)
            out = BytesIO()
            small.save(out, "JPEG", quality=JPEG_QUALITY)
        except _MALFORMED:
            raise _refused("The image is broken.", "malformed") from None
    return out.getvalue()


def check_kind(data: bytes) -> None:
    """Raise `RefusedError` for what first bytes and length alone rule out, as `prepared` does."""
    if not data:
        raise _refused("The image is empty.", "empty")
    if len(data) > MOST_IMAGE_BYTES:
        raise too_large()
    _format_of(data)


def as_png(data: bytes) -> bytes:
    """A picture that a model made, as PNG without anything but pixels. Raises `RefusedError`."""
    with _opened(data) as picture:
        try:
            out = BytesIO()
            plain = picture.convert("RGBA" if _has_alpha(picture) else "RGB")
            plain.info.clear()
            plain.save(out, "PNG")
        except _MALFORMED:
            raise _refused("The image is broken.", "malformed") from None
    return out.getvalue()


def too_large() -> RefusedError:
    """What is said of an upload beyond the bound."""
    mib = MOST_IMAGE_BYTES // (1024 * 1024)
    return _refused(f"The image is larger than {mib} MB.", "too_large", status=413)


def _format_of(data: bytes) -> str:
    """The decoder for these bytes."""
    name = _FORMATS.get(sniffed(data) or "")
    if name is None:
        taken = "PNG, JPEG, GIF or WebP"
        raise _refused(f"The image must be {taken}; these bytes are not.", "wrong_type", status=415)
    return name


def _opened(data: bytes) -> Image:
    """The picture, its header read and its size checked; its pixels are not decoded yet."""
    from PIL import Image  # noqa: PLC0415 - an extra, and slow to import

    name = _format_of(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(data), formats=[name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name) from None
    except _MALFORMED:
        raise _refused("The image is broken.", "malformed") from None
    width, height = picture.size
    if width * height > _FEWER_PIXELS.get(name, MOST_PIXELS):
        picture.close()
        raise _too_many_pixels(name)
    return picture


def _small(picture: Image) -> Image:
    """Its pixels, band by band: of the decoded picture only a part is ever held in another form."""
    from PIL import Image  # noqa: PLC0415 - as above

    picture.draft("RGB", (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # JPEG decodes smaller at once
    width, height = picture.size
    step = max(1, max(width, height) // (2 * LONGEST_SIDE))
    small = Image.new("RGB", (-(-width // step), -(-height // step)))
    for top in range(0, height, BAND_ROWS * step):
        band = picture.crop((0, top, width, min(height, top + BAND_ROWS * step)))
        small.paste(_plain(band).reduce(step), (0, top // step))
    turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return small if turn is None else small.transpose(Image.Transpose[turn])


def _plain(band: Image) -> Image:
    """In RGB; what is transparent is white."""
    from PIL import Image  # noqa: PLC0415 - as above

    if band.mode.startswith("I"):  # 16 bits of grey, of which converting would clip all but the darkest
        band = band.convert("I").point(lambda grey: grey * (1 / 256)).convert("L")
    if not _has_alpha(band):
        return band.convert("RGB")
    layered = band.convert("RGBA")
    plain = Image.new("RGB", layered.size, (255, 255, 255))
    plain.paste(layered, mask=layered.getchannel("A"))
    return plain


def _has_alpha(picture: Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


def _too_many_pixels(name: str) -> RefusedError:
    millions = _FEWER_PIXELS.get(name, MOST_PIXELS) // 1_000_000
    return _refused(f"The image has more than {millions} million pixels.", "too_large", status=413)


def _refused(sentence: str, issue: str, *, status: int = 400) -> RefusedError:
    return RefusedError(sentence, status=status, validator="image", issue=issue)

"""From encoded bytes to a square of RGB pixels."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fttune.trial import Resize

# More than any camera takes at once; decoded, some copies of it still fit into memory.
MOST_PIXELS = 2**27
# What is named here alone is tried: PIL knows formats that run a program (EPS) or that no data set is kept in.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# PIL warns where it does not refuse yet; here the line is MOST_PIXELS, and one line says so.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class CorruptImageError(ValueError):
    """The bytes are no whole image."""


def decode(content: bytes, size: int, resize: Resize) -> np.ndarray:
    """uint8 [size, size, 3]. `crop`: short side to `size`, centre cut; `warp`: straight to a square. Bicubic.

    Turned as its EXIF says; what is transparent lies on white; 16-bit grey keeps its upper eight bits.
    """
    with opened(content) as image:
        upright = _rgb(ImageOps.exif_transpose(image))
    if resize == "crop":
        return np.asarray(_centre(upright, size))
    return np.asarray(upright.resize((size, size), Image.Resampling.BICUBIC))


@contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """The image, not decoded yet; whatever fails inside the block becomes a CorruptImageError that says why.

    Refused by its header alone: more than MOST_PIXELS, of which a few bytes can make gigabytes.
    """
    if not content:
        raise CorruptImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_pixels(*image.size)
            yield image
    except CorruptImageError:
        raise
    except UnidentifiedImageError:
        raise CorruptImageError("no image of a known format") from None
    except Exception as error:  # a decoder fed with garbage fails in any way at all
        reason = " ".join(str(error).split())[:150]
        raise CorruptImageError(reason or type(error).__name__) from error


def encode(image: Image.Image) -> bytes:
    """An image without loss, as plain pixels where its mode allows: the same bytes under every library version."""
    buffer = io.BytesIO()
    image.save(buffer, "PPM" if image.mode in ("L", "RGB") else "PNG")
    return buffer.getvalue()


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Cut at whole pixels: half a pixel of shift would blur, which costs a point of ImageNet accuracy."""
    short = min(image.size)
    width, height = (max(size, round(side * size / short)) for side in image.size)
    _check_pixels(width, height)  # a strip of a few pixels' width is stretched by as much as its side is short
    fitted = image if short == size else image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return fitted.crop((left, top, left + size, top + size))


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise CorruptImageError(f"{width} x {height} pixels, more than the {MOST_PIXELS:,} that are decoded")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")

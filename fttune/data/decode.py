"""From encoded bytes to a square of RGB pixels."""

import io

import numpy as np
from PIL import Image, ImageOps

from fttune.trial import Resize


class CorruptImageError(ValueError):
    """The bytes are no whole image."""


def decode(content: bytes, size: int, resize: Resize) -> np.ndarray:
    """uint8 [size, size, 3]. `crop`: short side to `size`, centre cut; `warp`: straight to a square. Bicubic.

    Turned as its EXIF says; what is transparent lies on white; 16-bit grey keeps its upper eight bits.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # a decoder fed with garbage fails in any way at all
        raise CorruptImageError(str(error)) from error
    if resize == "crop":
        return np.asarray(_centre(upright, size))
    return np.asarray(upright.resize((size, size), Image.Resampling.BICUBIC))


def encode(image: Image.Image) -> bytes:
    """An image without loss, as plain pixels where its mode allows: the same bytes under every library version."""
    buffer = io.BytesIO()
    image.save(buffer, "PPM" if image.mode in ("L", "RGB") else "PNG")
    return buffer.getvalue()


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Cut at whole pixels: half a pixel of shift would blur, which costs a point of ImageNet accuracy."""
    short = min(image.size)
    width, height = (max(size, round(side * size / short)) for side in image.size)
    fitted = image if short == size else image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return fitted.crop((left, top, left + size, top + size))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")

"""Every image decoded once, into one memory-mapped Arrow file that all processes of a machine share.

A file is named by what it holds: the digest of the source images, their stored side and how they were resized. An
index remembers the digest of a source by its fingerprint, so that an unchanged source is not read again.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fttune.data.census import Census, Corrupt
from fttune.data.decode import CorruptImageError, decode
from fttune.data.journal import Partial
from fttune.data.readers import ImageRef, Source
from fttune.errors import StoreError
from fttune.files import locked, replacing, writing
from fttune.runtime import cores
from fttune.trial import Resize
from fttune.trial import digest as digest_of

Progress = Callable[[int, int], None]  # images done, images in all

_CHUNK = 256  # images decoded and written at once
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of Arrow's streaming format


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStore:
    """The decoded images of a dataset, memory-mapped; N images of side S in C classes."""

    digest: str  # of the source images, whatever their stored side
    size: int  # pixels, S
    classes: tuple[str, ...]  # C names
    labels: np.ndarray  # int64 [N]
    keys: tuple[str, ...]  # N
    pools: tuple[str, ...]  # N of any, train, test
    skipped: tuple[str, ...]  # keys of images that could not be decoded
    copies: tuple[str, ...]  # keys left out because an equal file stands under another key
    dropped: tuple[str, ...]  # classes the dataset left out as too small
    pixels: tuple[np.ndarray, ...]  # uint8 [n, S, S, 3] views into the map, N images in all

    def images(self, rows: np.ndarray) -> np.ndarray:
        """The images of `rows`, uint8 [len(rows), S, S, 3]: the one copy that is made of them."""
        taken = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        ends = np.cumsum([len(block) for block in self.pixels])
        owner = np.searchsorted(ends, rows, side="right")
        # A batch meets few of the thousands of blocks of a large store.
        for number in np.unique(owner):
            here, block = owner == number, self.pixels[number]
            taken[here] = block[rows[here] - (ends[number] - len(block))]
        return taken


def build(
    source: Source,
    *,
    name: str,
    size: int,
    resize: Resize,
    root: Path,
    corrupt: Corrupt = "refuse",
    dropped: Sequence[str] = (),
    progress: Progress | None = None,
) -> ImageStore:
    """The store of a source: opened if it is there and the source unchanged, decoded otherwise.

    Processes that ask at once do the work once; what a killed or a refused one has decoded is not decoded again. Raises
    DataError once all is decoded for corrupt images and images that stand in two classes (unless skipped), and where
    `root` cannot be written; StoreError where there is no room.
    """
    fingerprint = source.fingerprint()  # once: of a folder it looks every file up
    entry = _entry(source, fingerprint, corrupt)
    # The stem is the dataset's, not its content's: what was decoded of a source that has changed since is dropped.
    stem = root / f"building-{digest_of([name, size, resize])[:16]}"
    with writing(root), locked(root / f"{entry}-{size}-{resize}"), locked(stem):
        terms = {"source": fingerprint, "size": size, "resize": resize, "chunk": _CHUNK, "notes": 3}
        with Partial(stem, terms=terms, head=_schema(size).serialize().to_pybytes()) as partial:
            found = _built(root, entry, size, resize)
            if found is not None:
                partial.remove_ours()  # of a process killed at its last step, or under a name given up since
                return found
            census = Census(source=source)
            _decode_all(census, partial, size, resize, progress)
            census.check(name, corrupt)
            content = _publish(census, partial, root, entry, size, resize, dropped)
    return open_store(root=root, digest=content, size=size, resize=resize)


def find_digest(source: Source, *, root: Path, corrupt: Corrupt = "refuse") -> str | None:
    """The digest of a source that was decoded here at any size and has not changed since; writes nothing."""
    return _digest(root, _entry(source, source.fingerprint(), corrupt))


def find_built(
    source: Source, *, size: int, resize: Resize, root: Path, corrupt: Corrupt = "refuse"
) -> ImageStore | None:
    """The store of an unchanged source, or None; writes nothing."""
    return _built(root, _entry(source, source.fingerprint(), corrupt), size, resize)


def _digest(root: Path, entry: str) -> str | None:
    try:
        return json.loads((root / f"{entry}.json").read_text())["digest"]
    except (OSError, ValueError, KeyError):
        return None


def _built(root: Path, entry: str, size: int, resize: Resize) -> ImageStore | None:
    content = _digest(root, entry)
    if content is None or not (root / _file(content, size, resize)).exists():
        return None
    try:
        return open_store(root=root, digest=content, size=size, resize=resize)
    except StoreError:
        return None


def is_built(*, root: Path, digest: str, size: int, resize: Resize) -> bool:
    """Whether there is a store of known content; it is not looked into."""
    return (root / _file(digest, size, resize)).exists()


def open_store(*, root: Path, digest: str, size: int, resize: Resize) -> ImageStore:
    """Map the store of known content; StoreError when it is not there or damaged."""
    path = root / _file(digest, size, resize)
    try:
        content = pa.memory_map(str(path))
        table = pa.ipc.open_stream(content).read_all()
        # Arrow takes a stream that was cut between two batches for a whole one.
        if content.read_at(len(_END_OF_STREAM), content.size() - len(_END_OF_STREAM)) != _END_OF_STREAM:
            raise ValueError("its end is missing")
        facts = json.loads(path.with_suffix(".json").read_text())
        return ImageStore(
            digest=facts["digest"],
            size=size,
            classes=tuple(facts["classes"]),
            labels=table["label"].to_numpy(),
            keys=tuple(table["key"].to_pylist()),
            pools=tuple(table["pool"].to_pylist()),
            skipped=tuple(facts["skipped"]),
            copies=tuple(facts["copies"]),
            dropped=tuple(facts["dropped"]),
            pixels=tuple(_view(chunk, size) for chunk in table["image"].chunks),
        )
    except FileNotFoundError:
        hint = "`fttune prepare` or `fttune run` decodes it"
        raise StoreError(f"no decoded images at {path}: {hint} (FTTUNE_STORE moves the folder)") from None
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged image store ({error}); remove the file and run again") from None


def _entry(source: Source, fingerprint: str, corrupt: Corrupt) -> str:
    """The name of a source in the index."""
    told = [fingerprint, corrupt]
    if _official(source):
        told.append("test images before their copies")  # earlier versions kept the first of each by its key
    return f"source-{digest_of(told)[:16]}"


def _official(source: Source) -> list[ImageRef]:
    """The images of an official test set; none where all images are of one pool."""
    return [ref for ref in source.images if ref.pool == "test"]


def _file(digest: str, size: int, resize: Resize) -> str:
    return f"{digest[:16]}-{size}-{resize}.arrows"


def _view(chunk: pa.FixedSizeBinaryArray, size: int) -> np.ndarray:
    width = size * size * 3
    values = np.frombuffer(chunk.buffers()[1], np.uint8, count=len(chunk) * width, offset=chunk.offset * width)
    return values.reshape(len(chunk), size, size, 3)


def _decode_all(census: Census, partial: Partial, size: int, resize: Resize, progress: Progress | None) -> None:
    """Append what is not decoded yet, chunk by chunk, in the order of the source."""
    refs = census.source.images
    done = sum(map(census.recall, partial.take_up()))
    _check_room(partial.stem.parent, (len(refs) - done) * size * size * 3)
    if done and progress:
        progress(done, len(refs))
    with ThreadPoolExecutor(cores()) as pool:
        census.tested = _read_tested(census.source, pool) if done < len(refs) else {}
        for start in range(done, len(refs), _CHUNK):
            chunk = refs[start : start + _CHUNK]
            read = pool.map(lambda ref: _read(census.source, ref, size, resize), chunk)
            rows, images, note = census.take(zip(chunk, read, strict=True))
            partial.append(_serialised(rows, images, size) if rows else b"", note)
            del images  # not beside those of the next chunk
            if progress:
                progress(start + len(chunk), len(refs))


def _read_tested(source: Source, pool: ThreadPoolExecutor) -> dict[str, ImageRef]:
    """An official test set by the SHA-256 of its images, the first of each, before any image is taken in."""
    refs = _official(source)
    found: dict[str, ImageRef] = {}
    for ref, sha in zip(refs, pool.map(lambda ref: _sha(source, ref), refs), strict=True):
        found.setdefault(sha, ref)
    return found


def _sha(source: Source, ref: ImageRef) -> str:
    """Of the bytes of an image; of its key where they cannot be read, which is told when it is to be decoded."""
    try:
        return hashlib.sha256(source.read(ref)).hexdigest()
    except (CorruptImageError, OSError):
        return ref.key


def _check_room(root: Path, needed: int) -> None:
    """Rather now than after hours; images that turn out corrupt would have needed less."""
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StoreError(
            f"no room left in {root}: decoding takes {needed / 1e6:,.1f} MB, but {free / 1e6:,.1f} MB are free;"
            " set FTTUNE_STORE to move it"
        )


def _publish(
    census: Census, partial: Partial, root: Path, entry: str, size: int, resize: Resize, dropped: Sequence[str]
) -> str:
    """Make what was decoded the store, its facts and its place in the index first; the digest."""
    facts = census.facts | {"dropped": list(dropped)}
    path = root / _file(str(facts["digest"]), size, resize)
    for file, content in ((path.with_suffix(".json"), facts), (root / f"{entry}.json", {"digest": facts["digest"]})):
        with locked(file), replacing(file) as temporary:
            temporary.write_text(json.dumps(content))
    partial.finish(_END_OF_STREAM, path)
    return str(facts["digest"])


def _read(source: Source, ref: ImageRef, size: int, resize: Resize) -> tuple[str, np.ndarray | str]:
    """SHA-256 of the bytes, and the pixels; instead of these the reason why they cannot be read or decoded."""
    try:
        content = source.read(ref)
        return hashlib.sha256(content).hexdigest(), decode(content, size, resize)
    except CorruptImageError as error:
        return "", str(error)
    except OSError as error:
        return "", error.strerror or type(error).__name__


def _serialised(refs: Sequence[ImageRef], images: Sequence[np.ndarray], size: int) -> memoryview:
    """One message of Arrow's streaming format."""
    return memoryview(pa.record_batch(_columns(refs, images, size), schema=_schema(size)).serialize())


def _schema(size: int) -> pa.Schema:
    image = pa.binary(size * size * 3)
    return pa.schema([("image", image), ("label", pa.int64()), ("key", pa.string()), ("pool", pa.string())])


def _columns(refs: Sequence[ImageRef], images: Sequence[np.ndarray], size: int) -> list[pa.Array]:
    kind = _schema(size).field("image").type
    pixels = pa.FixedSizeBinaryArray.from_buffers(kind, len(images), [None, pa.py_buffer(np.stack(images))])
    return [
        pixels,
        pa.array([ref.label for ref in refs], pa.int64()),
        pa.array([ref.key for ref in refs], pa.string()),
        pa.array([ref.pool for ref in refs], pa.string()),
    ]

"""An increment: one growing file of what changed in a database; decompressed, it is a WAL that SQLite replays.

Layout, front to back. `zstd -d` passes over skippable frames (RFC 8878, section 3.1.2):

1. skippable frame: the head, as JSON: whose database it is, on which timeline, and what the file follows on.
2. zstd frame: the 32 bytes of a WAL's header.
3. for each flush:
   - skippable frame: a record of fixed size: when, from which state to which, what comes next, and a hash that chains
     it to all before it.
   - zstd frame: the changed pages, each once, as frames of that WAL. The last is a commit.

Each record stands before what it describes. So a file is scanned from front to back by reading its records alone; it
may end anywhere, and all that is whole counts; and a file that lost a part, or got parts of another, is found out by
nothing but itself.

Numbers are little-endian, as in RFC 8878.
"""

import hashlib
import json
import os
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portfolio_ops import __version__
from portfolio_ops.errors import RefusedError, VerificationError
from portfolio_ops.host.files import open_regular
from portfolio_ops.sqlite.cuts import RECORD, Cuts, chain_of, follows, length_of
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal_header import SALTS, encode_header

FORMAT = 1

RAW = 1
"""Resolution in seconds of a file that was written from a live WAL; files that were merged have a coarser one."""

_KIND = "increment"
_HEAD = struct.Struct("<II8s32s")  # magic, length of what follows, signature, sha-256 of the text behind it
_HEAD_MAGIC, _HEAD_SIGNATURE = 0x184D2A5D, b"pf-wal\x00\x01"
_HEAD_MOST = 64 << 10
_RAW_FRAME = bytes.fromhex("28b52ffd 20 20 010100")
"""What makes 32 bytes a zstd frame: magic, no checksum, their number, one block as it is (RFC 8878, section 3.1.1).

Made by hand, for so it is the same in every version of zstd, and `scan` can compare it bit by bit.
"""
_CHUNK = 1 << 20


class NotAnIncrementError(VerificationError):
    """The head of a file is not one of an increment: the file is foreign, or damaged at its front."""

    code = "NOT_AN_INCREMENT"


@dataclass(frozen=True)
class Link:
    """What an increment follows on: the end of another, or a snapshot.

    Attributes:
        chain: The hash of the last cut before it.
        position: The state from which it goes on.
    """

    chain: bytes
    position: Position


@dataclass(frozen=True)
class Head:
    """What an increment says of itself.

    Attributes:
        site: The site's name.
        timeline: The name of one unbroken history of the database.
        page_size: Of the database, in bytes.
        resolution: In seconds; in each such span of UTC there is one cut at most. `RAW` where nothing was merged.
        predecessor: The end of the increment before it; None for the first of a timeline.
    """

    site: str
    timeline: str
    page_size: int
    resolution: int
    predecessor: Link | None


@dataclass(frozen=True)
class Increment:
    """A file, as far as it is good.

    Attributes:
        path: Where it is.
        head: What it says of itself.
        chain: The hash of the head: where the chain of cuts begins.
        start: Where the first flush begins, in bytes.
        cuts: The moments it holds, in the order in which they were written.
        torn: Bytes behind the last of them that an append left which did not come to its end.
        damaged: What is wrong behind the last of them; empty where nothing is.
    """

    path: Path
    head: Head
    chain: bytes
    start: int
    cuts: Cuts
    torn: int
    damaged: str

    @property
    def salts(self) -> bytes:
        """The salts of the WAL that it decompresses to."""
        return wal_salts(self.chain)

    @property
    def end(self) -> int:
        """How many bytes are good."""
        return self.cuts[-1].end if self.cuts else self.start

    @property
    def link(self) -> Link | None:
        """What the next increment follows on."""
        return Link(self.cuts[-1].chain, self.cuts[-1].position) if self.cuts else self.head.predecessor


def wal_salts(chain: bytes) -> bytes:
    """The salts of an increment's WAL, from the hash of its head: other files' frames are never taken for its own."""
    return chain[:SALTS]


def encode_head(head: Head) -> tuple[bytes, bytes]:
    """The bytes before the first flush, and the hash of the head.

    Raises:
        ValueError: No database has pages of this size.
    """
    document = {
        "format": FORMAT,
        "kind": _KIND,
        "site": head.site,
        "timeline": head.timeline,
        "page_size": head.page_size,
        "resolution": head.resolution,
        "predecessor": _encode_link(head.predecessor),
        "made_by": f"portfolio-ops {__version__}",
    }
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()
    digest = hashlib.sha256(text).digest()
    frame = _HEAD.pack(_HEAD_MAGIC, _HEAD.size - 8 + len(text), _HEAD_SIGNATURE, digest) + text
    chain = hashlib.sha256(frame).digest()
    return frame + _wal_header(head.page_size, chain), chain


def scan(path: Path, remembered: bytes = b"") -> Increment:
    """Read what a file holds: its head and its records only; `verify` reads the rest.

    Args:
        remembered: Records that were read before, from the first on: those that go on from the head are not read again.

    Raises:
        NotAnIncrementError: Its head is none of an increment, or damaged: nothing of it can be used.
        RefusedError: It is of a newer format.
        PortfolioOpsError: It cannot be opened, or is not a regular file.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        head, chain, start = _read_head(descriptor, path)
        cuts, damaged = _read_cuts(descriptor, size, chain, start, remembered)
    finally:
        os.close(descriptor)
    torn = 0 if damaged else size - (cuts[-1].end if cuts else start)
    return Increment(path, head, chain, start, cuts, torn, damaged)


def head_of(path: Path) -> Head:
    """What a file says of itself, and nothing of what it holds.

    Raises:
        PortfolioOpsError: As `scan`.
    """
    descriptor = open_regular(path)
    try:
        return _read_head(descriptor, path)[0]
    finally:
        os.close(descriptor)


def gap(before: Increment, after: Increment) -> str:
    """What is amiss between an increment and the next; empty where no state is missing.

    The position tells. Of files that were never merged the chain must agree, too; those that were may have been merged
    again by another zstd, to the same pages in other bytes.
    """
    for name in ("site", "timeline", "page_size"):
        ours, theirs = getattr(before.head, name), getattr(after.head, name)
        if ours != theirs:
            return f"{before.path} is of {name} {ours}, {after.path} of {theirs}"
    link, wanted = before.link, after.head.predecessor
    if link is None or wanted is None or link.position != wanted.position:
        return f"{after.path} does not go on where {before.path} ends"
    if before.head.resolution == after.head.resolution == RAW and link.chain != wanted.chain:
        return f"{before.path} is not the file behind which {after.path} was written"
    return ""


def _read_head(descriptor: int, path: Path) -> tuple[Head, bytes, int]:
    """The head, its hash, and where the first flush begins."""
    hint = "a foreign or damaged file; move it away"
    data = os.pread(descriptor, _HEAD.size, 0)
    if len(data) < _HEAD.size:
        raise NotAnIncrementError(f"{path} is too short ({len(data)} bytes) to be an increment", suggestion=hint)
    magic, length, signature, digest = _HEAD.unpack(data)
    text_bytes = length + 8 - _HEAD.size
    if (magic, signature) != (_HEAD_MAGIC, _HEAD_SIGNATURE) or not 0 < text_bytes <= _HEAD_MOST:
        raise NotAnIncrementError(f"{path} does not begin as an increment does", suggestion=hint)
    text = os.pread(descriptor, text_bytes, _HEAD.size)
    if hashlib.sha256(text).digest() != digest:
        raise NotAnIncrementError(f"the head of {path} is damaged", suggestion=hint)
    head, chain = _parse_head(text, path), hashlib.sha256(data + text).digest()
    header = _wal_header(head.page_size, chain)
    if os.pread(descriptor, len(header), _HEAD.size + len(text)) != header:
        raise NotAnIncrementError(f"the header of the WAL in {path} is damaged", suggestion=hint)
    return head, chain, _HEAD.size + len(text) + len(header)


def _parse_head(text: bytes, path: Path) -> Head:
    try:
        document = json.loads(text)
        if document["format"] > FORMAT:
            raise RefusedError(
                f"{path} has format {document['format']}, this portfolio-ops reads up to {FORMAT}",
                suggestion="use the portfolio-ops that wrote it, or a newer one",
            )
        head = Head(
            document["site"],
            document["timeline"],
            document["page_size"],
            document["resolution"],
            _parse_link(document["predecessor"]),
        )
        encode_header(head.page_size, bytes(SALTS), big_endian=False)
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnIncrementError(f"the head of {path} cannot be understood ({error!r})") from error
    if document["kind"] != _KIND:
        raise NotAnIncrementError(f"{path} is no increment but of kind {document['kind']}")
    return head


def _encode_link(link: Link | None) -> dict[str, Any] | None:
    if link is None:
        return None
    return {"chain": link.chain.hex(), "salts": link.position.salts, "frame": link.position.frame}


def _parse_link(document: dict[str, Any] | None) -> Link | None:
    if document is None:
        return None
    return Link(bytes.fromhex(document["chain"]), Position(document["salts"], document["frame"]))


def _wal_header(page_size: int, chain: bytes) -> bytes:
    """The zstd frame of the WAL's header."""
    return _RAW_FRAME + encode_header(page_size, wal_salts(chain), big_endian=False)


def _read_cuts(descriptor: int, size: int, chain: bytes, at: int, remembered: bytes) -> tuple[Cuts, str]:
    """The whole cuts of a file of `size` bytes from byte `at` on, and what is wrong behind them."""
    records, ends = bytearray(), array("Q")
    while True:
        known = remembered[len(records) : len(records) + RECORD]
        record = known if len(known) == RECORD else os.pread(descriptor, RECORD, at)
        if len(record) != RECORD:
            break
        if not follows(record, chain):
            if known:
                remembered = b""
                continue
            return Cuts(bytes(records), ends), _doubt(descriptor, size, at)
        end = at + RECORD + length_of(record)
        if end > size:
            break
        records += record
        ends.append(end)
        at, chain = end, chain_of(record)
    return Cuts(bytes(records), ends), ""


def _doubt(descriptor: int, size: int, at: int) -> str:
    """What is wrong with a record that is not the next; nothing where there are only zeros.

    A power cut can leave them: some filesystems note a file's new length before they have written what it holds.
    """
    for offset in range(at, size, _CHUNK):
        if any(os.pread(descriptor, _CHUNK, offset)):
            return f"what stands at byte {at} is not the next record of this file, or damaged"
    return ""

"""BLAKE3 of many strings at once: one string, or one 1,024-byte chunk of a string, in each lane of a vector.

Spec: the BLAKE3 paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2021), 2.1 to 2.5; `specs/commitments.md`, "Hashes".
The digests are ordinary BLAKE3, plain or keyed, bit for bit. The `blake3` package fills its lanes from one long input;
here short ones share them. Chunks wait in one queue for each number of 64-byte blocks, so that the lanes of a call end
together whatever the mixture of lengths.

All in one file, because Numba's cache notices changes of the file that holds the compiled functions, and of no other.
Importing this module compiles it (some seconds) or loads it from Numba's cache; `pot.commitments.batch` does so when
there is enough to hash. Callers check every bound before they call: nothing in here does.

Shows / does not show: nothing by itself.
"""

# Compiled functions have their types from the signatures at the end.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, attr-defined"

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

if config.DISABLE_JIT or sys.byteorder != "little":
    raise ImportError("Numba's compiler is switched off, or the machine is big endian")

__all__ = ["IV", "KEYED", "LANES", "MAX_LENGTH", "hash_halves", "hash_pairs", "hash_strings"]

MAX_LENGTH: Final = 1 << 16  # bytes; one longer string fills the blake3 package's own lanes

IV: Final = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTATION: Final = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_QUARTERS: Final = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),  # columns
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),  # diagonals
)
_CHUNK_START: Final = 1
_CHUNK_END: Final = 2
_PARENT: Final = 4
_ROOT: Final = 8
KEYED: Final = 16

_BLOCK: Final = 64
_CHUNK: Final = 1024
_BLOCKS: Final = _CHUNK // _BLOCK
_HELD: Final = (
    1 << 14
)  # chunk hashes that wait for their strings' trees: 512 KiB, twice, so that they stay in the cache

_AHEAD: Final = 1 << 14  # bytes by which reading is announced: the chunks of one call lie in about as many


def _lanes() -> int:
    """As many lanes as a register has words: wider vectors would go through memory."""
    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else binding.get_host_cpu_features().flatten()
    return 16 if "+avx512f" in features else 8 if "+avx2" in features else 4


LANES: Final = _lanes()
_WORD: Final = ir.IntType(32)
_ADDRESS: Final = ir.IntType(64)
_VECTOR: Final = ir.VectorType(_WORD, LANES)
_MASKS: Final = bytes([255] * _BLOCK + [0] * _BLOCK)


# --- LLVM code of one compression; `b` is the instruction builder, vectors are words of all lanes ---


def _shuffled(b: Any, first: Any, second: Any, order: list[int]) -> Any:
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(_WORD, len(order)), order))


def _splat(b: Any, word: Any) -> Any:
    one = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), word, ir.Constant(_WORD, 0))
    return _shuffled(b, one, one, [0] * LANES)


def _constant(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * LANES)


def _load(b: Any, address: Any, offset: int = 0, kind: Any = _VECTOR) -> Any:
    moved = b.add(address, ir.Constant(_ADDRESS, offset)) if offset else address
    return b.load(b.inttoptr(moved, kind.as_pointer()), align=1)


def _store(b: Any, value: Any, address: Any, offset: int = 0) -> None:
    moved = b.add(address, ir.Constant(_ADDRESS, offset)) if offset else address
    b.store(value, b.inttoptr(moved, value.type.as_pointer()), align=1)


def _transposed(b: Any, rows: list[Any]) -> list[Any]:
    """A square of words turned over its diagonal: exchange off-diagonal squares of 1, 2, 4, ... words."""
    width = 1
    while width < LANES:
        upper = [LANES + at - width if at & width else at for at in range(LANES)]
        lower = [LANES + at if at & width else at + width for at in range(LANES)]
        turned = list(rows)
        for at in range(LANES):
            if not at & width:
                turned[at] = _shuffled(b, rows[at], rows[at | width], upper)
                turned[at | width] = _shuffled(b, rows[at], rows[at | width], lower)
        rows, width = turned, 2 * width
    return rows


def _message(b: Any, blocks: list[Any], words: int, masks: list[Any] | None = None) -> list[Any]:
    """The 16 message words of all lanes from the addresses of their blocks, of which `words` words are read."""
    message = []
    for start in range(0, words, LANES):
        rows = []
        for lane, address in enumerate(blocks):
            if words < LANES:
                half = _load(b, address, 0, ir.VectorType(_WORD, words))
                rows.append(_shuffled(b, half, ir.Constant(half.type, None), list(range(LANES))))
                continue
            row = _load(b, address, 4 * start)
            rows.append(b.and_(row, _load(b, masks[lane], 4 * start)) if masks else row)
        message += _transposed(b, rows)
    return (message + [_constant(0)] * 16)[:16]


def _compressed(b: Any, chain: list[Any], message: list[Any], counter: Any, length: Any, flags: Any) -> list[Any]:
    """The compression function, 2.2 of the paper, cut to its 8 words of chaining value."""
    v = [*chain, *(_constant(word) for word in IV[:4]), counter, _constant(0), length, flags]

    shift = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _VECTOR])
    funnel = cgutils.get_or_insert_function(b.module, shift, f"llvm.fshr.v{LANES}i32")

    def turned_right(value: Any, by: int) -> Any:
        return b.call(funnel, [value, value, _constant(by)])

    for turn in range(7):
        for number, (at_a, at_b, at_c, at_d) in enumerate(_QUARTERS):
            for word, by_d, by_b in ((message[2 * number], 16, 12), (message[2 * number + 1], 8, 7)):
                v[at_a] = b.add(b.add(v[at_a], v[at_b]), word)
                v[at_d] = turned_right(b.xor(v[at_d], v[at_a]), by_d)
                v[at_c] = b.add(v[at_c], v[at_d])
                v[at_b] = turned_right(b.xor(v[at_b], v[at_c]), by_b)
        if turn < 6:
            message = [message[place] for place in _PERMUTATION]
    return [b.xor(v[at], v[at + 8]) for at in range(8)]


def _store_digests(b: Any, chain: list[Any], places: list[Any]) -> None:
    """Write each lane's 8 words to its place."""
    for start in range(0, 8, min(8, LANES)):
        part = chain[start : start + LANES]
        rows = _transposed(b, part + [ir.Constant(_VECTOR, ir.Undefined)] * (LANES - len(part)))
        for place, row in zip(places, rows, strict=True):
            _store(b, row if LANES <= 8 else _shuffled(b, row, row, list(range(8))), place, 4 * start)


def _per_lane(b: Any, addresses: Any) -> list[Any]:
    return [_load(b, addresses, 8 * lane, _ADDRESS) for lane in range(LANES)]


# --- the same as operations that compiled code can call; all arguments are addresses or whole numbers ---


def _integers(count: int) -> Any:
    return types.void(*[types.int64] * count)


def _full_block_operation(typing, state, pointers, offset, counters, flags):
    """Take one block of 64 bytes, at each lane's pointer plus `offset`, into the chaining values at `state`."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        state, pointers, offset, counters, flags = arguments
        message = _message(b, [b.add(pointer, offset) for pointer in _per_lane(b, pointers)], 16)
        chain = [_load(b, state, 4 * LANES * word) for word in range(8)]
        told = _splat(b, b.trunc(flags, _WORD))
        for word, value in enumerate(_compressed(b, chain, message, _load(b, counters), _constant(_BLOCK), told)):
            _store(b, value, state, 4 * LANES * word)
        return context.get_dummy_value()

    return _integers(5), generate


_full_block: Any = intrinsic(_full_block_operation)


def _last_block_operation(typing, state, pointers, offset, counters, lengths, flags):
    """The same for a block of which each lane has its own number of bytes and flags; what follows them counts as 0."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        state, pointers, offset, counters, lengths, flags = arguments
        table = cgutils.global_constant(
            b, "blake3_masks", ir.Constant(ir.ArrayType(ir.IntType(8), 128), bytearray(_MASKS))
        )
        full = b.add(b.ptrtoint(table, _ADDRESS), ir.Constant(_ADDRESS, _BLOCK))
        masks = [b.sub(full, b.zext(_load(b, lengths, 4 * lane, _WORD), _ADDRESS)) for lane in range(LANES)]
        message = _message(b, [b.add(pointer, offset) for pointer in _per_lane(b, pointers)], 16, masks)
        chain = [_load(b, state, 4 * LANES * word) for word in range(8)]
        result = _compressed(b, chain, message, _load(b, counters), _load(b, lengths), _load(b, flags))
        for word, value in enumerate(result):
            _store(b, value, state, 4 * LANES * word)
        return context.get_dummy_value()

    return _integers(6), generate


_last_block: Any = intrinsic(_last_block_operation)


def _write_operation(typing, state, places):
    """Write each lane's chaining value, 32 bytes, to its place."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        state, places = arguments
        _store_digests(b, [_load(b, state, 4 * LANES * word) for word in range(8)], _per_lane(b, places))
        return context.get_dummy_value()

    return _integers(2), generate


_write: Any = intrinsic(_write_operation)


def _fetch_operation(typing, address):
    """Ask for a cache line early: lanes read from many places, more than the processor foresees."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        fetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        b.call(fetch, [b.inttoptr(arguments[0], byte), *(ir.Constant(word, flag) for flag in (0, 3, 1))])
        return context.get_dummy_value()

    return _integers(1), generate


_fetch: Any = intrinsic(_fetch_operation)


def _row_operation(words: int) -> Any:
    """Hash one vector's rows of `words` words that lie one after the other, under the key words at `key`."""

    def operation(typing, key, rows, flags, out):
        def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
            key, rows, flags, out = arguments
            blocks = [b.add(rows, ir.Constant(_ADDRESS, 4 * words * lane)) for lane in range(LANES)]
            chain = [_splat(b, _load(b, key, 4 * word, _WORD)) for word in range(8)]
            told = _splat(b, b.trunc(flags, _WORD))
            result = _compressed(b, chain, _message(b, blocks, words), _constant(0), _constant(4 * words), told)
            _store_digests(b, result, [b.add(out, ir.Constant(_ADDRESS, 32 * lane)) for lane in range(LANES)])
            return context.get_dummy_value()

        return _integers(4), generate

    return intrinsic(operation)


_half_rows: Any = _row_operation(8)
_pair_rows: Any = _row_operation(16)

# --- compiled code ---

_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_NUMBERS = types.Array(types.int64, 1, "C", readonly=True)
_KEY = types.Array(types.uint32, 1, "C", readonly=True)
_ROWS = types.Array(types.uint8, 2, "C", readonly=True)
_OUT = types.Array(types.uint8, 2, "C")


def _compiled(function: Any, *arguments: Any) -> Any:
    """Compile for these types now, or load the result from the cache; go without a cache where none can be written."""
    try:
        return njit(types.void(*arguments), nogil=True, cache=True)(function)
    except (RuntimeError, OSError):  # no folder for a cache can be written (Numba names three), or the disk is full
        return njit(types.void(*arguments), nogil=True)(function)


_inner = njit(nogil=True)


@_inner
def _run(blocks, addresses, lengths, counters, flags, places, filled, key, mode, state):
    """Hash the chunks of one queue, all of `blocks` blocks; lanes without a chunk work for the bin."""
    for lane in range(filled, LANES):
        addresses[lane] = addresses[0]
        places[lane] = state[8].ctypes.data
    for word in range(8):
        state[word] = key[word]
    at, numbers, told = addresses.ctypes.data, counters.ctypes.data, mode | _CHUNK_START
    for block in range(blocks - 1):
        _full_block(state.ctypes.data, at, block * _BLOCK, numbers, told)
        told = mode
    _last_block(state.ctypes.data, at, (blocks - 1) * _BLOCK, numbers, lengths.ctypes.data, flags.ctypes.data)
    _write(state.ctypes.data, places.ctypes.data)


@_inner
def _trees(strings, held, spare, first, counts, places, key, mode, state):
    """Hash the chunks' hashes of `strings` strings to their roots, one level of all trees after the other (2.1)."""
    addresses, targets = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    lengths, counters = np.full(LANES, _BLOCK, np.uint32), np.zeros(LANES, np.uint32)
    flags, one = np.zeros(LANES, np.uint32), np.int64(1)  # a literal 1 would compile all of `_run` a second time
    while strings:
        left = lane = 0
        from_base, to_base = held.ctypes.data, spare.ctypes.data
        for string in range(strings):
            count, start = counts[string], first[string]
            for pair in range(count // 2):
                addresses[lane] = from_base + 32 * (start + 2 * pair)
                targets[lane] = places[string] if count == 2 else to_base + 32 * (start + pair)
                flags[lane] = mode | _PARENT | (_ROOT if count == 2 else 0)
                lane += 1
                if lane == LANES:
                    _run(one, addresses, lengths, counters, flags, targets, lane, key, mode, state)
                    lane = 0
            if count & 1:
                spare[start + count // 2] = held[start + count - 1]
            if count > 2:
                first[left], counts[left], places[left] = start, (count + 1) // 2, places[string]
                left += 1
        if lane:
            _run(one, addresses, lengths, counters, flags, targets, lane, key, mode, state)
        held, spare, strings = spare, held, left


@_inner
def _empty(queue, waiting, key, mode, state):
    addresses, lengths, counters, flags, places = queue
    for n in range(1, _BLOCKS + 1):
        if waiting[n]:
            _run(n, addresses[n], lengths[n], counters[n], flags[n], places[n], waiting[n], key, mode, state)
            waiting[n] = 0


@_inner
def _stream(data, starts, ends, tail, held, spare, key, mode, out):
    """Send every chunk of every string to its queue; `tail`: a copy of the data's end with a block of room behind."""
    base, end, results, room = data.ctypes.data, data.ctypes.data + len(data), out.ctypes.data, len(held)
    to_tail = tail.ctypes.data + len(tail) - _BLOCK - end
    state = np.empty((8 + max(1, 8 // LANES), LANES), np.uint32)  # behind it, the bin of `_run`
    first, counts, targets = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    shape = (_BLOCKS + 1, LANES)
    addresses, places = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    lengths, counters, flags = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    queue, waiting = (addresses, lengths, counters, flags, places), np.zeros(_BLOCKS + 1, np.int64)
    used = strings = 0
    for string in range(len(starts)):
        length, address = ends[string] - starts[string], base + starts[string]
        if length > MAX_LENGTH:
            continue
        place, told = results + 32 * string, mode | _CHUNK_END | _ROOT
        count = max(1, (length + _CHUNK - 1) // _CHUNK)
        if count > 1:
            if used + count > room:
                _empty(queue, waiting, key, mode, state)
                _trees(strings, held, spare, first, counts, targets, key, mode, state)
                used = strings = 0
            first[strings], counts[strings], targets[strings] = used, count, place
            place, told = held.ctypes.data + 32 * used, mode | _CHUNK_END
            strings, used = strings + 1, used + count
        for counter in range(count):
            part = min(_CHUNK, length)
            n = max(1, (part + _BLOCK - 1) // _BLOCK)
            for block in range(n):
                _fetch(address + _AHEAD + _BLOCK * block)
            lane = waiting[n]
            addresses[n, lane] = address + to_tail if address + n * _BLOCK > end else address
            lengths[n, lane] = part - (n - 1) * _BLOCK
            counters[n, lane] = counter
            flags[n, lane] = told | _CHUNK_START if n == 1 else told
            places[n, lane] = place
            waiting[n] = lane + 1
            if lane + 1 == LANES:
                _run(n, addresses[n], lengths[n], counters[n], flags[n], places[n], lane + 1, key, mode, state)
                waiting[n] = 0
            length, address, place = length - part, address + part, place + 32
    _empty(queue, waiting, key, mode, state)
    _trees(strings, held, spare, first, counts, targets, key, mode, state)


def _hash_strings(data, starts, ends, key, mode, out):
    """BLAKE3 of data[starts[i]:ends[i]] into out[i]; strings over `MAX_LENGTH` bytes are left out.

    `mode`: 0, or 16 for keyed hashing; `key`: the key's words, or `IV`.
    """
    # Whole blocks are read, so the chunks at the very end are read from a copy with room behind it.
    tail_size = min(len(data), _CHUNK)
    tail = np.zeros(tail_size + _BLOCK, np.uint8)
    tail[:tail_size] = data[len(data) - tail_size :]
    room = 0
    for string in range(len(starts)):
        length = ends[string] - starts[string]
        if _CHUNK < length <= MAX_LENGTH and room < _HELD:
            room += (length + _CHUNK - 1) // _CHUNK
    held, spare = np.empty((room, 32), np.uint8), np.empty((room, 32), np.uint8)
    _stream(data, starts, ends, tail, held, spare, key, mode, out)


def _hash_pairs(rows, key, mode, out):
    """BLAKE3 of each row of 64 bytes into the row of `out`."""
    told, whole = mode | _CHUNK_START | _CHUNK_END | _ROOT, len(rows) // LANES * LANES
    spare = np.zeros((2 * LANES, 64), np.uint8)  # the last rows, if they do not fill the lanes, and their digests
    spare[: len(rows) - whole] = rows[whole:]
    for row in range(0, len(rows), LANES):
        full = row < whole
        source = rows.ctypes.data + 64 * row if full else spare.ctypes.data
        _pair_rows(key.ctypes.data, source, told, out.ctypes.data + 32 * row if full else spare[LANES].ctypes.data)
    for row in range(whole, len(rows)):
        out[row] = spare[LANES:].reshape(2 * LANES, 32)[row - whole]


def _hash_halves(rows, key, mode, out):
    """BLAKE3 of each row of 32 bytes into the row of `out`."""
    told, whole = mode | _CHUNK_START | _CHUNK_END | _ROOT, len(rows) // LANES * LANES
    spare = np.zeros((2 * LANES, 32), np.uint8)
    spare[: len(rows) - whole] = rows[whole:]
    for row in range(0, len(rows), LANES):
        full = row < whole
        source = rows.ctypes.data + 32 * row if full else spare.ctypes.data
        _half_rows(key.ctypes.data, source, told, out.ctypes.data + 32 * row if full else spare[LANES].ctypes.data)
    for row in range(whole, len(rows)):
        out[row] = spare[LANES + row - whole]


hash_strings = _compiled(_hash_strings, _BYTES, _NUMBERS, _NUMBERS, _KEY, types.int64, _OUT)
hash_pairs = _compiled(_hash_pairs, _ROWS, _KEY, types.int64, _OUT)

hash_halves = _compiled(_hash_halves, _ROWS, _KEY, types.int64, _OUT)

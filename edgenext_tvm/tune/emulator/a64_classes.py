"""Which pipeline an A64 instruction occupies, from its 32-bit word.

Follows the encoding index of the Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4. Coarse on
purpose: instructions that common cores treat alike share a class.
"""

from __future__ import annotations

from functools import cache

CLASSES = (
    "integer",  # arithmetic, logic, moves, addresses, conditional selects; also system instructions
    "integer_multiply",
    "integer_divide",
    "branch",
    "load",  # general registers, single or pair
    "store",
    "simd_load",  # one vector or floating-point register
    "simd_load_multiple",  # pairs and structures of several registers
    "simd_store",
    "simd_store_multiple",
    "simd_multiply",  # integer, same width: mul, mla, sqrdmulh
    "simd_multiply_long",  # smull, smlal, and the like
    "simd_dot",  # sdot, udot, usdot, smmla
    "fp",  # floating-point arithmetic, scalar or vector, without the next class
    "fp_divide",  # and square root
    "simd_other",  # integer additions, shifts, permutations, conversions, pairwise sums
)

_LONG_MULTIPLIES = {0b1000, 0b1001, 0b1010, 0b1011, 0b1100, 0b1101, 0b1110}
_SAME_WIDTH_MULTIPLIES = {0b10010, 0b10011, 0b10110}
_ELEMENT_SAME_WIDTH = {0b0000, 0b0100, 0b1000, 0b1100, 0b1101, 0b1111}
_ELEMENT_FP = {0b0001, 0b0101, 0b1001}


def _bits(word: int, high: int, low: int) -> int:
    return word >> low & ((1 << (high - low + 1)) - 1)


@cache
def class_of(word: int) -> str:
    """The class of one instruction."""
    op0 = _bits(word, 28, 25)
    if op0 in (0b1000, 0b1001):
        return "integer"
    if op0 in (0b1010, 0b1011):
        is_system = _bits(word, 31, 22) == 0b1101010100
        return "integer" if is_system else "branch"
    if op0 & 0b0101 == 0b0100:
        return _memory(word)
    if op0 & 0b0111 == 0b0101:
        return _register(word)
    if op0 & 0b0111 == 0b0111:
        return _vector(word)
    return "integer"


def _memory(word: int) -> str:
    simd = _bits(word, 26, 26)
    group = _bits(word, 29, 28)
    if group in (0b00, 0b10):  # exclusives or vector structures; pairs
        is_load, several = _bits(word, 22, 22) == 1, bool(simd)
        if simd and group == 0b00:
            several = not _is_single_structure(word)
    elif group == 0b01:  # literals; unscaled with release or acquire
        is_load, several = _bits(word, 24, 24) == 0 or _bits(word, 23, 22) != 0, False
    else:
        # of a 128-bit register, bit 23 is part of the size
        is_load, several = (_bits(word, 22, 22) == 1 if simd else _bits(word, 23, 22) != 0), False
    name = ("simd_" if simd else "") + ("load" if is_load else "store")
    return name + ("_multiple" if several else "")


def _is_single_structure(word: int) -> bool:
    """Whether ld1 or st1 moves one register only (one lane counts as one)."""
    if _bits(word, 24, 24) == 0:
        return _bits(word, 15, 12) == 0b0111
    return _bits(word, 21, 21) == 0 and _bits(word, 13, 13) == 0


def _register(word: int) -> str:
    if _bits(word, 28, 24) == 0b11011:
        return "integer_multiply"
    if _bits(word, 30, 21) == 0b0011010110 and _bits(word, 15, 11) == 0b00001:
        return "integer_divide"
    return "integer"


def _vector(word: int) -> str:
    if _bits(word, 31, 31) == 0 and _bits(word, 27, 25) == 0b111 and _bits(word, 28, 28) == 0:
        return _simd(word)
    if _bits(word, 31, 30) == 0b01 and _bits(word, 28, 25) == 0b1111:  # scalars in vector registers
        return _simd(word)
    if _bits(word, 31, 30) == 0b11:  # eor3 and the cryptographic ones
        return "simd_other"
    if _bits(word, 24, 24) == 1:  # fmadd and its like
        return "fp"
    if _bits(word, 21, 21) == 1 and _bits(word, 11, 10) == 0b10:
        return "fp_divide" if _bits(word, 15, 12) == 0b0001 else "fp"
    if _bits(word, 21, 21) == 1 and _bits(word, 14, 10) == 0b10000:
        return "fp_divide" if _bits(word, 20, 15) == 0b000011 else "fp"
    return "fp"


def _simd(word: int) -> str:
    if _bits(word, 24, 24) == 1:
        return _by_element(word)
    if _bits(word, 21, 21) == 0 and _bits(word, 15, 15) == 1 and _bits(word, 10, 10) == 1:
        return "simd_multiply" if _bits(word, 14, 12) == 0 else "simd_dot"
    if _bits(word, 21, 21) == 1 and _bits(word, 10, 10) == 1:
        opcode = _bits(word, 15, 11)
        if opcode in _SAME_WIDTH_MULTIPLIES:
            return "simd_multiply"
        if opcode >= 0b11000:
            is_divide = opcode == 0b11111 and _bits(word, 29, 29) == 1 and _bits(word, 23, 23) == 0
            return "fp_divide" if is_divide else "fp"
        return "simd_other"
    if _bits(word, 21, 21) == 1 and _bits(word, 11, 10) == 0b00:
        return "simd_multiply_long" if _bits(word, 15, 12) in _LONG_MULTIPLIES else "simd_other"
    if _bits(word, 21, 17) == 0b10000 and _bits(word, 16, 12) == 0b11111 and _bits(word, 23, 23) == 1:
        return "fp_divide" if _bits(word, 29, 29) == 1 else "simd_other"
    return "simd_other"


def _by_element(word: int) -> str:
    if _bits(word, 10, 10) == 1:  # shifts and immediates
        return "simd_other"
    opcode = _bits(word, 15, 12)
    if opcode == 0b1110 or (opcode == 0b1111 and _bits(word, 29, 29) == 0):
        return "simd_dot"
    if opcode in _ELEMENT_FP:
        return "fp"
    return "simd_multiply" if opcode in _ELEMENT_SAME_WIDTH else "simd_multiply_long"

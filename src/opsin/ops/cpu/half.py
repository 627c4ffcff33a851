"""f16 for CPUs that cannot convert it: LLVM calls two library functions by name, which nobody provides in a process.

They are written as LLVM code, so that the caller and they agree on how an f16 is handed over.
"""

from __future__ import annotations

_EXTEND = """
define float @__extendhfsf2(half %h) {
  %narrow = bitcast half %h to i16
  %bits = zext i16 %narrow to i32
  %magnitude = and i32 %bits, 32767
  %top = and i32 %bits, 32768
  %sign = shl i32 %top, 16
  %moved = shl i32 %magnitude, 13
  %small = bitcast i32 %moved to float
  %value = fmul float %small, 0x46F0000000000000 ; 2**112: the difference of the exponents' zeros
  %number = bitcast float %value to i32
  %odd = or i32 %moved, 2139095040
  %isodd = icmp uge i32 %magnitude, 31744 ; infinity or NaN
  %chosen = select i1 %isodd, i32 %odd, i32 %number
  %all = or i32 %chosen, %sign
  %result = bitcast i32 %all to float
  ret float %result
}
"""
# Rounds to nearest even: by an addition whose result has the bits wanted, or by adding half of the last one.
_TRUNCATE = """
define half @__truncsfhf2(float %f) {
  %bits = bitcast float %f to i32
  %shifted = lshr i32 %bits, 16
  %sign = and i32 %shifted, 32768
  %magnitude = and i32 %bits, 2147483647
  %isnan = icmp ugt i32 %magnitude, 2139095040
  %huge = select i1 %isnan, i32 32256, i32 31744
  %value = bitcast i32 %magnitude to float
  %added = fadd float %value, 0.5
  %addedbits = bitcast float %added to i32
  %small = sub i32 %addedbits, 1056964608 ; the bits of 0.5
  %last = lshr i32 %magnitude, 13
  %isodd = and i32 %last, 1
  %rebiased = add i32 %magnitude, -939520001 ; (15 - 127) * 2**23 + 4095
  %rounded = add i32 %rebiased, %isodd
  %normal = lshr i32 %rounded, 13
  %issmall = icmp ult i32 %magnitude, 947912704 ; below 2**-14
  %finite = select i1 %issmall, i32 %small, i32 %normal
  %ishuge = icmp uge i32 %magnitude, 1199570944 ; 2**16 and more
  %chosen = select i1 %ishuge, i32 %huge, i32 %finite
  %all = or i32 %chosen, %sign
  %narrow = trunc i32 %all to i16
  %result = bitcast i16 %narrow to half
  ret half %result
}
"""


def conversions(triple: str) -> str:
    """LLVM code of the conversions, for machines of which some lack the instructions."""
    return _EXTEND + _TRUNCATE if triple.startswith("x86_64") else ""

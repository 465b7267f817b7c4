/*
 * GCC 12 declares _tile_loadconfig with an 8-byte memory operand, so it may drop the stores of the
 * other 56 bytes of the tile configuration; the first AMX instruction then faults.  Forced into every
 * C++ file of libllama's build, this names the whole operand.
 */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(p) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])(p)) : "memory")
#endif

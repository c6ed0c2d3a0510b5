// What the loops of `loops.py` are written in: vectors of float32, read from and written to tensors of any type, and
// masks. PyTorch's own vectors do the arithmetic. Tensors of one and two bytes are read here, since there a vector of
// bytes goes through memory; and so are masks, which AVX-512 has registers of their own for.
#pragma once
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

using V = at::vec::Vectorized<float>;
constexpr int WIDTH = V::size();

inline V read(const float* p) { return V::loadu(p); }
inline void write(float* p, V v) { v.store(p); }

#if defined(CPU_CAPABILITY_AVX512)

using Mask = __mmask16;

inline __m128i bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i halves(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline V read(const int8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes(p))); }
inline V read(const uint8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes(p))); }
inline V read(const at::Half* p) { return _mm512_cvtph_ps(halves(p)); }
inline V read(const at::BFloat16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves(p)), 16));
}

inline void write_bytes(void* p, V v) {  // whole numbers
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
}
inline void write(int8_t* p, V v) { write_bytes(p, v); }
inline void write(uint8_t* p, V v) { write_bytes(p, v); }
inline void write(at::Half* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void write(at::BFloat16* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(at::vec::convert<at::BFloat16>(v)));
}

inline Mask lt(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask ge(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask eq(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline V where(Mask mask, V a, V b) { return _mm512_mask_blend_ps(mask, b, a); }
inline V one_where(Mask mask) { return _mm512_maskz_mov_ps(mask, _mm512_set1_ps(1)); }
inline V copysign(V a, V sign) {
  const __m512i sign_bit = _mm512_set1_epi32(static_cast<int>(0x80000000));
  const int from_sign_where_bit_else_a = 0xD8;
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
      _mm512_castps_si512(a), _mm512_castps_si512(sign), sign_bit, from_sign_where_bit_else_a));
}
// the second operand is what these instructions give where either is no number
inline V at_most(V v, V limit) { return _mm512_min_ps(limit, v); }
inline V at_least(V v, V limit) { return _mm512_max_ps(limit, v); }
// of magnitudes: as whole numbers their bits have the same order, infinity and then what is no number above all
inline V larger(V a, V b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
inline V largest_of(V v) {
  return _mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epi32(_mm512_castps_si512(v))));
}

// To one in 10,000, of `TIMES` square roots after each other: two reciprocal roots are a fourth root.
template <int TIMES>
inline V about_root(V v) {
  static_assert(TIMES == 2 || TIMES == 3);
  const V fourth = _mm512_rsqrt14_ps(_mm512_rsqrt14_ps(at_least(v, V(1e-36f))));
  return TIMES == 2 ? fourth : fourth * V(_mm512_rsqrt14_ps(fourth));
}

#else

using Mask = V;

template <class T>
inline V read(const T* p) {
  alignas(64) float numbers[WIDTH];
  for (int i = 0; i < WIDTH; ++i) numbers[i] = static_cast<float>(p[i]);
  return V::loadu(numbers);
}
template <class T>
inline void write(T* p, V v) {
  alignas(64) float numbers[WIDTH];
  v.store(numbers);
  for (int i = 0; i < WIDTH; ++i) p[i] = static_cast<T>(numbers[i]);
}
#if defined(CPU_CAPABILITY_AVX2)
inline V read(const at::Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void write(at::Half* p, V v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#endif

inline Mask lt(V a, V b) { return a < b; }
inline Mask ge(V a, V b) { return a >= b; }
inline Mask eq(V a, V b) { return a == b; }
inline V where(Mask mask, V a, V b) { return V::blendv(b, a, mask); }
inline V one_where(Mask mask) { return mask & V(1); }
inline V copysign(V a, V sign) { return a.abs() | (sign & V(-0.0f)); }
inline V at_most(V v, V limit) { return at::vec::minimum(v, limit); }
inline V at_least(V v, V limit) { return at::vec::maximum(v, limit); }
inline V larger(V a, V b) { return at::vec::maximum(a, b); }
inline V largest_of(V v) {
  return V(at::vec::vec_reduce_all<float>([](V& a, V& b) { return at::vec::maximum(a, b); }, v));
}
template <int TIMES>
inline V about_root(V v) {
  for (int i = 0; i < TIMES; ++i) v = v.sqrt();
  return v;
}

#endif

template <class T>
inline V rounded(V v) {
  alignas(64) T numbers[WIDTH];
  write(numbers, v);
  return read(numbers);
}
inline double sum_of(V v) {
  return at::vec::vec_reduce_all<float>([](V& a, V& b) { return a + b; }, v);
}
inline float first_of(V v) {
  alignas(64) float numbers[WIDTH];
  v.store(numbers);
  return numbers[0];
}

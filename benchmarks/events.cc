// The yardstick of benchmarks/events.py: g[j] += w for each synapse of each active neuron, written by hand.
#include <cstdint>
#include <cstring>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

static ffi::Error Send(ffi::Buffer<ffi::PRED> events, ffi::BufferR0<ffi::F32> weight,
                       ffi::Buffer<ffi::S32> indptr, ffi::Buffer<ffi::S32> indices,
                       ffi::Buffer<ffi::F32> before, ffi::ResultBuffer<ffi::F32> total) {
  const bool* event = events.typed_data();
  const int32_t* start = indptr.typed_data();
  const int32_t* target = indices.typed_data();
  float* out = total->typed_data();
  const float w = *weight.typed_data();
  const int64_t n = events.element_count();
  constexpr int kAhead = 4;
  int64_t waiting[kAhead];
  int64_t count = 0;
  auto row = [&](int64_t i) {
    for (int32_t s = start[i]; s < start[i + 1]; ++s) out[target[s]] += w;
  };
  auto found = [&](int64_t i) {
    for (int32_t s = start[i]; s < start[i + 1]; s += 16) __builtin_prefetch(target + s);
    if (count >= kAhead) row(waiting[count % kAhead]);
    waiting[count++ % kAhead] = i;
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t word;
    std::memcpy(&word, event + i, 8);
    for (; word != 0; word &= word - 1) found(i + (__builtin_ctzll(word) >> 3));
  }
  for (; i < n; ++i) {
    if (event[i]) found(i);
  }
  for (int64_t k = count > kAhead ? count - kAhead : 0; k < count; ++k) row(waiting[k % kAhead]);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(SendHandler, Send,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Arg<ffi::BufferR0<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

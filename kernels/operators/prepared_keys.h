// The head of the buffer that AdditiveAttention::PrepareKeys fills: who wrote it, for which sizes and lengths. Run
// checks it, on CUDA when it is asked to validate, so that the keys of another layer, another sentence length or an
// unfilled buffer are refused, not computed with.
#ifndef LAMINA_KERNELS_OPERATORS_PREPARED_KEYS_H_
#define LAMINA_KERNELS_OPERATORS_PREPARED_KEYS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "lamina/additive_attention.h"
#include "lamina/status.h"

namespace lamina::prepared_keys {

struct Head {
  uint64_t writer;
  int64_t batch, keys;
  // int32_t lengths[batch] follow
};

// A number of its own for every set of packed weights; never 0.
inline uint64_t NewWriter() {
  static std::atomic<uint64_t> last{0x6c616d696e61'0000};  // "lamina"
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

// Bytes of the head with its lengths, whole cache lines.
inline size_t HeadBytes(const AdditiveAttentionDesc& d) {
  return (sizeof(Head) + static_cast<size_t>(d.batch) * sizeof(int32_t) + 63) / 64 * 64;
}

inline int32_t LengthOf(const AdditiveAttentionDesc& d, const int32_t* key_lengths, int64_t b) {
  return key_lengths != nullptr ? key_lengths[b] : static_cast<int32_t>(d.keys);
}

inline Status CheckLengths(const AdditiveAttentionDesc& d, const int32_t* key_lengths) {
  for (int64_t b = 0; key_lengths != nullptr && b < d.batch; ++b) {
    if (key_lengths[b] < 0 || key_lengths[b] > d.keys) {
      return InvalidArgument(ToString(d) + ": key_lengths must lie in [0, keys], got b=" + std::to_string(b) +
                             " key_lengths[b]=" + std::to_string(key_lengths[b]) + " keys=" + std::to_string(d.keys));
    }
  }
  return {};
}

inline void WriteHead(const AdditiveAttentionDesc& d, uint64_t writer, const int32_t* key_lengths, std::byte* data) {
  const Head head{writer, d.batch, d.keys};
  std::memcpy(data, &head, sizeof(head));
  for (int64_t b = 0; b < d.batch; ++b) {
    const int32_t length = LengthOf(d, key_lengths, b);
    std::memcpy(data + sizeof(head) + static_cast<size_t>(b) * sizeof(length), &length, sizeof(length));
  }
}

inline Status CheckHead(const AdditiveAttentionDesc& d, uint64_t writer, const int32_t* key_lengths,
                        const std::byte* data) {
  Head head;
  std::memcpy(&head, data, sizeof(head));
  if (head.writer != writer) {
    return InvalidArgument(ToString(d) + ": prepared_keys must hold what PrepareKeys of this operator wrote");
  }
  if (head.batch != d.batch || head.keys != d.keys) {
    return InvalidArgument(ToString(d) +
                           ": prepared_keys must have been written for the same batch and keys, got batch=" +
                           std::to_string(head.batch) + " keys=" + std::to_string(head.keys));
  }
  for (int64_t b = 0; b < d.batch; ++b) {
    int32_t prepared;
    std::memcpy(&prepared, data + sizeof(head) + static_cast<size_t>(b) * sizeof(prepared), sizeof(prepared));
    const int32_t length = LengthOf(d, key_lengths, b);
    if (length > prepared) {
      return InvalidArgument(
          ToString(d) + ": key_lengths must not exceed those given to PrepareKeys, got key_lengths[" +
          std::to_string(b) + "]=" + std::to_string(length) + " prepared=" + std::to_string(prepared));
    }
  }
  return {};
}

}  // namespace lamina::prepared_keys

#endif  // LAMINA_KERNELS_OPERATORS_PREPARED_KEYS_H_

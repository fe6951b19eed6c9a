#include "kernels/cuda/emulator/tma.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/emulator/block.h"
#include "kernels/cuda/emulator/mbarrier.h"
#include "kernels/cuda/emulator/ptx.h"

namespace lamina::cuda::emulator {
namespace {

enum Kind : uint32_t { kTile = 0x7711e, kIm2col = 0x12c01 };

template <class Map>
struct Kept {
  Kind kind;
  Map map;
};
static_assert(sizeof(Kept<TileMap>) <= sizeof(TensorMap) && sizeof(Kept<Im2colMap>) <= sizeof(TensorMap));

template <class Map>
Map Open(const TensorMap& from, Kind kind) {
  Kept<Map> kept;
  std::memcpy(static_cast<void*>(&kept), from.bytes, sizeof(kept));
  if (kept.kind != kind) Die("TMA was given no tensor map, or one of the other kind");
  return kept.map;
}

// One line of a box: `count` elements from element `first` of a line of `length` on, zeros outside, to the swizzled
// places of `address`. A line that `exists` not is all zeros.
void CopyLine(uint32_t address, Swizzle swizzle, TmaElement element, const std::byte* line, bool exists, int64_t first,
              uint64_t length, uint32_t count) {
  const int size = Bytes(element);
  for (uint32_t i = 0; i < count; ++i) {
    const int64_t from = first + i;
    uint32_t bits = 0;
    if (exists && from >= 0 && from < static_cast<int64_t>(length)) {
      std::memcpy(&bits, line + from * size, static_cast<size_t>(size));
      if (element == TmaElement::kTf32) bits = RoundTf32(__uint_as_float(bits));
    }
    const uint32_t to = Swizzled(address + i * static_cast<uint32_t>(size), swizzle);
    Block::Current().AsyncWrite(to, &bits, static_cast<uint32_t>(size), "TMA");
  }
}

void CopyTile(uint32_t shared, const TileMap& m, const std::array<int, 5>& at) {
  const uint32_t line_bytes = m.box[0] * static_cast<uint32_t>(Bytes(m.element));
  uint32_t lines = 1;
  for (uint32_t d = 1; d < m.rank; ++d) lines *= m.box[d];
  for (uint32_t i = 0; i < lines; ++i) {
    const auto* line = static_cast<const std::byte*>(m.base);
    bool exists = true;
    uint32_t rest = i;
    for (uint32_t d = 1; d < m.rank; ++d) {
      const int64_t index = int64_t{at[d]} + rest % m.box[d];
      rest /= m.box[d];
      exists = exists && index >= 0 && index < static_cast<int64_t>(m.dims[d]);
      line += index * static_cast<int64_t>(m.strides[d - 1]);
    }
    CopyLine(shared + i * line_bytes, m.swizzle, m.element, line, exists, at[0], m.dims[0], m.box[0]);
  }
}

void CopyIm2col(uint32_t shared, const Im2colMap& m, const std::array<int, 4>& at, const std::array<int, 2>& offset) {
  const uint32_t line_bytes = m.channels * static_cast<uint32_t>(Bytes(m.element));
  int64_t position[3] = {at[1], at[2], at[3]};  // w, h, n of the window's origin
  const auto last = [&](int i) { return static_cast<int64_t>(m.dims[i + 1]) - 1 + m.upper[i]; };
  for (int i = 0; i < 2; ++i) {
    if (position[i] < m.lower[i] || position[i] > last(i)) Die("an im2col load began outside the map's windows");
  }
  for (uint32_t p = 0; p < m.pixels; ++p) {
    const int64_t pixel[3] = {position[0] + offset[0], position[1] + offset[1], position[2]};
    const auto* line = static_cast<const std::byte*>(m.base);
    bool exists = true;
    for (int d = 0; d < 3; ++d) {
      exists = exists && pixel[d] >= 0 && pixel[d] < static_cast<int64_t>(m.dims[d + 1]);
      line += pixel[d] * static_cast<int64_t>(m.strides[d]);
    }
    CopyLine(shared + p * line_bytes, m.swizzle, m.element, line, exists, at[0], m.dims[0], m.channels);
    for (int i = 0; i < 2; ++i) {  // w first, then h; n has no end
      position[i] += m.step[i];
      if (position[i] <= last(i)) break;
      position[i] = m.lower[i];
      if (i == 1) ++position[2];
    }
  }
}

// Both kinds: `copy` to a shared address and tell the barrier of `bytes`.
template <class Copy>
void Start(void* shared, uint64_t* barrier, int64_t bytes, const Copy& copy) {
  Block& block = Block::Current();
  const uint32_t address = block.SharedAddress(shared);
  if (address % 128 != 0) Die("TMA writes to multiples of 128 bytes");
  if (block.barriers_unfenced()) Die("TMA was given an mbarrier whose init was not fenced");
  block.Later([=] {
    copy(address);
    Mbarrier(barrier).Expect(-bytes);
  });
}

}  // namespace

void Store(const TileMap& map, TensorMap* to) {
  const Kept<TileMap> kept{kTile, map};
  std::memcpy(to->bytes, &kept, sizeof(kept));
}
void Store(const Im2colMap& map, TensorMap* to) {
  const Kept<Im2colMap> kept{kIm2col, map};
  std::memcpy(to->bytes, &kept, sizeof(kept));
}

void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int rank, const std::array<int, 5>& at) {
  const auto m = Open<TileMap>(map, kTile);
  if (m.rank != static_cast<uint32_t>(rank)) Die("TMA was given coordinates of another rank than the map's");
  int64_t bytes = Bytes(m.element);
  for (uint32_t d = 0; d < m.rank; ++d) bytes *= m.box[d];
  Start(shared, barrier, bytes, [=](uint32_t address) { CopyTile(address, m, at); });
}

void LoadIm2col(void* shared, const TensorMap& map, uint64_t* barrier, const std::array<int, 4>& at,
                const std::array<int, 2>& offset) {
  const auto m = Open<Im2colMap>(map, kIm2col);
  for (const int o : offset) {
    if (o < 0 || o > kMostTapOffset) Die("an im2col load takes offsets of 0 to 255 pixels");
  }
  const int64_t bytes = int64_t{m.channels} * m.pixels * Bytes(m.element);
  Start(shared, barrier, bytes, [=](uint32_t address) { CopyIm2col(address, m, at, offset); });
}

}  // namespace lamina::cuda::emulator

// TMA on the CPU: boxes and im2col columns of tensors, written byte by byte to where the hardware puts them in shared
// memory. The opaque TensorMap holds the plain map.
#ifndef LAMINA_KERNELS_CUDA_EMULATOR_TMA_H_
#define LAMINA_KERNELS_CUDA_EMULATOR_TMA_H_

#include <array>
#include <cstdint>

#include "kernels/cuda/core/tensor_map.h"

namespace lamina::cuda::emulator {

void Store(const TileMap& map, TensorMap* to);
void Store(const Im2colMap& map, TensorMap* to);

// Starts a load to `shared`; its bytes land, and `barrier` hears of them, at once or late.
void LoadTile(void* shared, const TensorMap& map, uint64_t* barrier, int rank, const std::array<int, 5>& at);
// `at`: c, w, h, n of the first pixel without the tap; `offset`: the tap's w, h.
void LoadIm2col(void* shared, const TensorMap& map, uint64_t* barrier, const std::array<int, 4>& at,
                const std::array<int, 2>& offset);

}  // namespace lamina::cuda::emulator

#endif  // LAMINA_KERNELS_CUDA_EMULATOR_TMA_H_

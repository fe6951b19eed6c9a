// The TMA map of a kernel's tensor, kept from call to call as long as the tensor stays where it is: encoding one takes
// longer than a launch. For calls from several threads.
#ifndef LAMINA_KERNELS_CUDA_KEPT_MAP_H_
#define LAMINA_KERNELS_CUDA_KEPT_MAP_H_

#include <mutex>
#include <variant>

#include "kernels/cuda/runtime.h"

namespace lamina::cuda {

class KeptMap {
 public:
  template <class Map>
  Error Encode(const Map& map, TensorMap* encoded) {
    const std::lock_guard lock(mutex_);
    if (const Map* kept = std::get_if<Map>(&map_); kept == nullptr || !(*kept == map)) {
      map_ = std::monostate();
      if (const Error error = EncodeTensorMap(map, &encoded_); !error.ok()) return error;
      map_ = map;
    }
    *encoded = encoded_;
    return {};
  }

 private:
  std::mutex mutex_;
  std::variant<std::monostate, TileMap, Im2colMap> map_;
  TensorMap encoded_;
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_KEPT_MAP_H_

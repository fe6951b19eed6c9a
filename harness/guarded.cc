#include "harness/guarded.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "harness/gpu.h"

namespace lamina::harness {

Guarded::Guarded(size_t bytes, Guard guard, size_t offset) : bytes_(bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t body = (offset + bytes + page - 1) / page * page;
  map_bytes_ = body + 2 * page;
  void* map = mmap(nullptr, map_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED ||
      (body > 0 && mprotect(static_cast<std::byte*>(map) + page, body, PROT_READ | PROT_WRITE) != 0)) {
    std::fprintf(stderr, "no memory for %zu guarded bytes\n", bytes);
    std::abort();
  }
  map_ = static_cast<std::byte*>(map);
  RegisterPages(map_ + page, body);
  data_ = guard == Guard::kEnd ? map_ + page + body - bytes : map_ + page + offset;
}

Guarded::~Guarded() {
  if (map_ == nullptr) return;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (map_bytes_ > 2 * page) UnregisterPages(map_ + page);
  munmap(map_, map_bytes_);
}

void Guarded::Protect() {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (map_bytes_ > 2 * page) mprotect(map_ + page, map_bytes_ - 2 * page, PROT_READ);
}

}  // namespace lamina::harness

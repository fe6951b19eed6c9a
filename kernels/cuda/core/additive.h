// Additive attention on a GPU: what the host tells the kernels, and how they share the work.
//   keys      E = exp(2b) of every key's projection b, or b itself where it is far: PrepareKeys, or the start of a Run
//   queries   a, by the matrix product
//   scores    s[query, key] in units of log2, -infinity where the key is masked, for a slab of queries at a time
//   context   softmax of a row of scores, and the sum of the values by it
// The formula is that of kernels/operators/additive_fold.h. Queries come in bands of up to 64 of one batch element.
#ifndef LAMINA_KERNELS_CUDA_CORE_ADDITIVE_H_
#define LAMINA_KERNELS_CUDA_CORE_ADDITIVE_H_

#include <cstdint>
#include <limits>

#include "kernels/cuda/core/divider.h"
#include "kernels/cuda/core/round.h"
#include "kernels/operators/prepared_keys.h"

namespace lamina::cuda {

// In place of a key's largest exponential: its row holds projections, out of the reciprocal form's range.
inline constexpr float kFar = std::numeric_limits<float>::infinity();
// Units are padded to a multiple of this, a row of 128 bytes.
inline constexpr int kUnitChunk = 32;
inline constexpr int kMostBand = 64;
// Scores of a slab: together about what L2 holds (33 MiB of an H200's 50).
inline constexpr int64_t kSlabBytesPerMultiprocessor = int64_t{256} << 10;

// v' and what it becomes, [unit_stride] each, and the factors that turn a sum into a score times log2(e).
struct ScoreVectors {
  const float *v = nullptr, *c = nullptr, *factor = nullptr;
  float quad_scale = 0, direct_scale = 0;
};

struct AdditiveArgs {
  int queries = 0, keys = 0;                  // of one batch element
  int units = 0, unit_stride = 0;             // real ones, and floats from row to row of queries and keys
  const int32_t* key_lengths = nullptr;       // [batch] or null
  const int32_t* prepared_lengths = nullptr;  // [batch], of the prepared keys
  const bool* mask = nullptr;                 // [batch, mask_queries, keys] or null
  int mask_queries = 1;
  ScoreVectors vectors = {};
  const float* query = nullptr;              // [batch * queries, unit_stride]: a
  const float* query_exponential = nullptr;  // the same of c A, and the largest of each row; read by the tiles alone
  const float* query_peak = nullptr;
  const float* key = nullptr;          // [batch * keys, unit_stride]: E, or b where the key is far
  const float* key_peak = nullptr;     // [batch * keys]: the row's largest E, or kFar
  int band = 1, bands = 1;             // queries of a band, but for the last; bands of a batch element
  int first_band = 0, slab_bands = 0;  // of the batch's: those that this launch computes
  float* scores = nullptr;             // [slab_bands * band, score_stride]
  int64_t score_stride = 0;
  const void* values = nullptr;  // [batch * keys] rows of dim elements
  int64_t value_stride = 0;
  bool value_quads = false;  // four elements of a row are aligned to their size wherever their index is
  int dim = 0;
  void* context = nullptr;  // [batch * queries] rows of dim elements
  int64_t context_stride = 0;
  bool context_quads = false;
  float* weights = nullptr;  // [batch * queries, keys] or null
};

struct Band {
  int batch, first, queries;  // of the batch element: its first query, and how many
  int64_t score_row;          // of the first
};
LAMINA_HD Band BandOf(const AdditiveArgs& a, int in_slab) {
  const int band = a.first_band + in_slab, batch = band / a.bands, first = (band - batch * a.bands) * a.band;
  return {batch, first, a.queries - first < a.band ? a.queries - first : a.band, int64_t{in_slab} * a.band};
}

LAMINA_HD int Clamped(int32_t length, int most) { return length < 0 ? 0 : length > most ? most : length; }

// Keys of a batch element that a query may see, but for masks: never more than there are, nor than were prepared.
LAMINA_HD int LiveKeys(const AdditiveArgs& a, int batch) {
  const int prepared = Clamped(a.prepared_lengths[batch], a.keys);
  return a.key_lengths == nullptr ? prepared : Clamped(a.key_lengths[batch], prepared);
}

// A query's row of the mask, or null.
LAMINA_HD const bool* MaskRow(const AdditiveArgs& a, int batch, int query) {
  if (a.mask == nullptr) return nullptr;
  return a.mask + (int64_t{batch} * a.mask_queries + (a.mask_queries == 1 ? 0 : query)) * a.keys;
}

// What turns projections into exponentials.
struct AdditiveKeysArgs {
  int rows = 0;       // batch * keys
  Divider keys = {};  // of one batch element
  int units = 0, unit_stride = 0;
  const int32_t* key_lengths = nullptr;
  float* key = nullptr;   // b becomes E
  float* peak = nullptr;  // [rows]
  prepared_keys::Head head = {};
  prepared_keys::Head* prepared = nullptr;  // the head's place, lengths behind it
};
struct AdditiveQueriesArgs {
  int rows = 0, units = 0, unit_stride = 0;
  const float* query = nullptr;
  const float* factor = nullptr;
  float* exponential = nullptr;
  float* peak = nullptr;
};

}  // namespace lamina::cuda

#endif  // LAMINA_KERNELS_CUDA_CORE_ADDITIVE_H_

#include "lamina/additive_attention.h"

#include <gtest/gtest.h>

#include "harness/additive_attention.h"

namespace lamina {
namespace {

using Desc = AdditiveAttentionDesc;
using harness::CheckParity;
using harness::Fill;
using harness::Guard;

void ExpectParity(const Desc& d, const harness::ParityOptions& options = {}) {
  const auto report = CheckParity<AdditiveAttention>(d, options);
  EXPECT_GT(report.passed, 0) << ToString(d);
  for (const auto& f : report.failures) ADD_FAILURE() << f;
}

// One guard side and two thread counts: for lists of many cases.
harness::ParityOptions Brief(uint64_t seed) {
  return {.threads = {1, 2}, .seed = seed, .tensors = {{Fill::kExact, Guard::kEnd}, {Fill::kNormal, Guard::kEnd}}};
}

TEST(AdditiveAttentionParity, TinyAndTileEdges) {
  // Units around the blocks of four vectors of 1, 4, 8 and 16 lanes; keys around groups of four; queries around tiles
  // of two, six and blocks of 16; dimensions around vectors.
  const int64_t units[] = {1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129};
  const int64_t keys[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33};
  const int64_t queries[] = {1, 2, 3, 5, 6, 7, 8, 12, 13, 15, 16, 17, 33};
  const int64_t dims[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 130};
  uint64_t seed = 1;
  for (int64_t u : units) {
    ExpectParity({.queries = queries[seed % 13],
                  .keys = keys[seed % 12],
                  .query_dim = dims[seed % 17],
                  .key_dim = 3,
                  .units = u},
                 Brief(seed));
    ++seed;
  }
  for (int64_t k : keys) {
    ExpectParity({.queries = 3, .keys = k, .query_dim = 5, .key_dim = dims[seed % 17], .units = 20}, Brief(seed));
    ++seed;
  }
  for (int64_t q : queries) {
    ExpectParity({.batch = 2, .queries = q, .keys = 6, .query_dim = 4, .key_dim = dims[seed % 17], .units = 24},
                 Brief(seed));
    ++seed;
  }
  for (int64_t c : dims) {
    ExpectParity({.queries = 7, .keys = 9, .query_dim = 6, .key_dim = 5, .units = 10, .value_dim = c}, Brief(seed));
    ++seed;
  }
}

TEST(AdditiveAttentionParity, AllOptionsTogether) {
  uint64_t seed = 100;
  for (bool bias : {false, true}) {
    for (bool normalized : {false, true}) {
      for (int mask : {0, 1, 2}) {  // none, one for all queries, one for each
        for (int64_t value_dim : {0, 19}) {
          for (bool slices : {false, true}) {
            Desc d{.batch = 3,
                   .queries = 5,
                   .keys = 11,
                   .query_dim = 9,
                   .key_dim = 17,
                   .units = 21,
                   .value_dim = value_dim,
                   .bias = bias,
                   .normalized = normalized,
                   .mask = mask > 0,
                   .mask_queries = mask == 2 ? 5 : 1};
            if (slices) {
              d.query_stride = 12;
              d.key_stride = 20;
              d.value_stride = value_dim ? 25 : 0;
              d.context_stride = 23;
            }
            ExpectParity(d, Brief(++seed));
          }
        }
      }
    }
  }
}

TEST(AdditiveAttentionParity, RealLayers) {
  ExpectParity({.keys = 50, .query_dim = 512, .key_dim = 512, .units = 512});  // a decoder step
  ExpectParity({.batch = 2,
                .queries = 25,
                .keys = 20,
                .query_dim = 256,
                .key_dim = 256,
                .units = 256,  // all steps
                .bias = true,
                .mask = true});
  // Bahdanau 2015: 1000 units, two directions of 1000; GNMT: normalised, 1024.
  ExpectParity({.keys = 6, .query_dim = 1000, .key_dim = 2000, .units = 1000}, Brief(5));
  ExpectParity(
      {.queries = 4, .keys = 5, .query_dim = 1024, .key_dim = 1024, .units = 1024, .bias = true, .normalized = true},
      Brief(6));
}

TEST(AdditiveAttentionParity, BothGuardsAndThreeThreadsOnOddSizes) {
  ExpectParity({.batch = 3,
                .queries = 18,
                .keys = 13,
                .query_dim = 10,
                .key_dim = 6,
                .units = 37,
                .value_dim = 21,
                .bias = true,
                .mask = true,
                .mask_queries = 18,
                .context_stride = 22},
               {.seed = 7});
  ExpectParity({.batch = 2, .queries = 1, .keys = 70, .query_dim = 3, .key_dim = 30, .units = 9}, {.seed = 8});
}

TEST(AdditiveAttentionParity, NoKeysNoQueriesNoBatch) {
  ExpectParity({.batch = 2, .queries = 3, .keys = 0, .query_dim = 4, .key_dim = 5, .units = 6});
  ExpectParity(
      {.batch = 2, .queries = 3, .keys = 0, .query_dim = 4, .key_dim = 5, .units = 6, .value_dim = 7, .mask = true});
  ExpectParity({.batch = 0, .queries = 3, .keys = 2, .query_dim = 4, .key_dim = 5, .units = 6});
  ExpectParity({.batch = 2, .queries = 0, .keys = 2, .query_dim = 4, .key_dim = 5, .units = 6});
}

TEST(AdditiveAttentionReference, BackendRunsTheLoops) {
  const auto report = CheckParity<AdditiveAttention>({.batch = 2,
                                                      .queries = 3,
                                                      .keys = 5,
                                                      .query_dim = 4,
                                                      .key_dim = 6,
                                                      .units = 7,
                                                      .value_dim = 3,
                                                      .bias = true,
                                                      .normalized = true,
                                                      .mask = true,
                                                      .mask_queries = 3},
                                                     {.backend = Backend::kReference});
  EXPECT_EQ(report.passed, 1);
  for (const auto& f : report.failures) ADD_FAILURE() << f;
}

}  // namespace
}  // namespace lamina

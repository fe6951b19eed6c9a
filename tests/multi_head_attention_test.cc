#include "lamina/multi_head_attention.h"

#include <gtest/gtest.h>

#include "harness/multi_head_attention.h"

namespace lamina {
namespace {

TEST(MultiHeadAttentionReference, BackendRunsTheLoops) {
  const MultiHeadAttentionDesc plain{.batch = 2,
                                     .num_heads = 4,
                                     .num_kv_heads = 2,
                                     .seqlen_q = 5,
                                     .seqlen_kv = 7,
                                     .head_dim = 3,
                                     .value_dim = 2,
                                     .causal = Causal::kBottomRight,
                                     .mask = true,
                                     .bias = true,
                                     .alibi = true,
                                     .softcap = 20};
  MultiHeadAttentionDesc layer = plain;
  layer.projections = true;
  layer.model_dim = 6;
  MultiHeadAttentionDesc cross = layer;
  cross.memory_dim = 5;
  for (const auto& d : {plain, layer, cross}) {
    for (uint64_t seed = 0; seed < 16; ++seed) {
      const auto report = harness::CheckParity<MultiHeadAttention>(d, {.backend = Backend::kReference, .seed = seed});
      EXPECT_EQ(report.passed, 1);
      for (const auto& f : report.failures) ADD_FAILURE() << f;
    }
  }
}

}  // namespace
}  // namespace lamina

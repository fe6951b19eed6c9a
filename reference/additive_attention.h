// additive_attention as the formula in lamina/additive_attention.h says it: plain loops, accumulation in double.
#ifndef LAMINA_REFERENCE_ADDITIVE_ATTENTION_H_
#define LAMINA_REFERENCE_ADDITIVE_ATTENTION_H_

#include "lamina/additive_attention.h"

namespace lamina::reference {

// query_w query + bias: [batch, queries, units]. magnitude, unless null: |bias| + sum |query_w||query| per element.
void ProjectQueries(const AdditiveAttentionDesc& desc, const AdditiveAttentionWeights& weights, const void* query,
                    double* projected, double* magnitude);

// key_w key: [batch, keys, units], rows from key_lengths[b] on (null: none) neither read nor written.
void ProjectKeys(const AdditiveAttentionDesc& desc, const AdditiveAttentionWeights& weights, const void* keys,
                 const int32_t* key_lengths, double* projected, double* magnitude);

// v' [units]: v, or g * v / ||v||.
void ScoreVector(const AdditiveAttentionDesc& desc, const AdditiveAttentionWeights& weights, double* v);

// Whether query i of batch element b may see key j.
bool IsLive(const AdditiveAttentionDesc& desc, const AdditiveAttentionTensors& tensors, int64_t b, int64_t i,
            int64_t j);

// From the projections and v': attention weights [batch, queries, keys] and context [batch, queries, context_dim],
// dense. magnitude, unless null: sum_j weight |value| per element of the context.
void AdditiveAttention(const AdditiveAttentionDesc& desc, const AdditiveAttentionTensors& tensors,
                       const double* query_units, const double* key_units, const double* v, double* context,
                       double* attention, double* magnitude);

}  // namespace lamina::reference

#endif  // LAMINA_REFERENCE_ADDITIVE_ATTENTION_H_

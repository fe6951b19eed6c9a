// A problem of any operator: what suites, networks and the command line hold, one line of text each.
#ifndef LAMINA_PROBLEM_H_
#define LAMINA_PROBLEM_H_

#include <string>
#include <string_view>
#include <variant>

#include "lamina/additive_attention.h"
#include "lamina/conv2d.h"
#include "lamina/cost.h"
#include "lamina/export.h"
#include "lamina/fully_connected.h"
#include "lamina/multi_head_attention.h"
#include "lamina/separable_conv2d.h"
#include "lamina/status.h"

namespace lamina {

using Problem =
    std::variant<Conv2dDesc, SeparableConv2dDesc, FullyConnectedDesc, AdditiveAttentionDesc, MultiHeadAttentionDesc>;

// Reads any descriptor's text; its first word says which operator. Reads only: ValidateProblem judges the values.
LAMINA_API Result<Problem> ParseProblem(std::string_view text);
LAMINA_API std::string ToString(const Problem& problem);
LAMINA_API Status ValidateProblem(const Problem& problem);
LAMINA_API Cost CostOf(const Problem& problem);

// What the operator was prepared for whose weights SavePacked has written; refuses what LoadPacked would refuse the
// file for.
LAMINA_API Result<Problem> PackedProblem(const std::string& path);

}  // namespace lamina

#endif  // LAMINA_PROBLEM_H_

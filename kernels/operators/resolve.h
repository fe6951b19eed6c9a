// What Prepare decides before it asks a candidate: the context with nothing left open, and the choice among reports.
#ifndef LAMINA_KERNELS_OPERATORS_RESOLVE_H_
#define LAMINA_KERNELS_OPERATORS_RESOLVE_H_

#include <string>
#include <string_view>
#include <vector>

#include "lamina/context.h"
#include "lamina/status.h"

namespace lamina {

inline constexpr size_t kScratchAlignment = 64;

// Fills in isa, pool and machine; refuses a backend or isa that this build or machine lacks, and values that are no
// members of their enums.
Result<Context> Resolve(const Context& asked);

// The same with a pool of one thread, in which candidates are judged: a choice that followed the number of threads
// would change the order of sums, and so bits, with it.
Context OnOneThread(const Context& context);

// Whether sharing this work with the pool's threads would take longer than doing it alone.
bool StaysInOneThread(const Context& context, double predicted_ns);

// "cpu/AVX3/implicit_gemm", "reference/naive"
std::string ImplementationName(const Context& context, std::string_view candidate);

// The index of the report to take: the one that context.implementation names (whole or its last part), else the
// accepted one with the least predicted time, the first of equals. Fails with every reason when none will do.
Result<size_t> Choose(const std::string& desc, const Context& context, const std::vector<CandidateReport>& reports);

// One line a report, the chosen one marked.
std::string ExplainReports(const std::vector<CandidateReport>& reports, std::string_view chosen);

}  // namespace lamina

#endif  // LAMINA_KERNELS_OPERATORS_RESOLVE_H_

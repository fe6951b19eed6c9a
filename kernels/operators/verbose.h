// What LAMINA_VERBOSE asks the library to tell of its work. The variable is read once, at the first event.
//   1            events as lines of CSV on the standard error, below a line of the columns' names:
//                  lamina_verbose,event,implementation,problem,threads,status,milliseconds
//                event is prepare, reshape, run or prepare_keys; implementation is empty where none was found; problem
//                is quoted text that `lamina bench` takes as it is; status is ok or the code of the refusal. On kCuda
//                milliseconds are those until the work was enqueued.
//   record:FILE  each distinct problem that has run, once with its number of runs, as `lamina bench --batch FILE` reads
//                it. Written when a problem is new, and at the program's end, when the numbers are whole.
#ifndef LAMINA_KERNELS_OPERATORS_VERBOSE_H_
#define LAMINA_KERNELS_OPERATORS_VERBOSE_H_

#include <chrono>
#include <string>
#include <string_view>

#include "lamina/context.h"
#include "lamina/status.h"

namespace lamina::verbose {

enum class Event { kPrepare, kReshape, kRun, kPrepareKeys };

// Whether anyone wants events: what a call costs where nobody does.
bool On();

void Tell(Event event, std::string_view implementation, const std::string& problem, size_t threads,
          const Status& status, double milliseconds);

class Stopwatch {
 public:
  double milliseconds() const { return std::chrono::duration<double, std::milli>(Clock::now() - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

// f(), told as an event of `op`.
template <class Op, class F>
Status Doing(Event event, const Op& op, const F& f) {
  if (!On()) return f();
  const Stopwatch watch;
  Status status = f();
  Tell(event, op.implementation(), ToString(op.desc()), op.context().pool->num_threads(), status, watch.milliseconds());
  return status;
}

// f(), told as an event of the operator for `desc` that it makes; of no implementation and no threads where it fails.
template <class Op, class F>
Result<Op> Making(Event event, const typename Op::Desc& desc, const F& f) {
  if (!On()) return f();
  const Stopwatch watch;
  Result<Op> op = f();
  Tell(event, op.ok() ? op->implementation() : "", ToString(desc), op.ok() ? op->context().pool->num_threads() : 0,
       op.status(), watch.milliseconds());
  return op;
}

}  // namespace lamina::verbose

#endif  // LAMINA_KERNELS_OPERATORS_VERBOSE_H_

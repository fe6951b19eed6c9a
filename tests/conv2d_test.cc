#include "lamina/conv2d.h"

#include <gtest/gtest.h>

#include "harness/conv2d.h"

namespace lamina {
namespace {

TEST(Conv2dReference, BackendRunsTheLoops) {
  const Conv2dDesc d{.n = 2, .ih = 5, .iw = 6, .ic = 3, .oc = 4, .kh = 3, .kw = 3, .pad_top = 1, .pad_left = 1};
  const auto report = harness::CheckParity<Conv2d>(d, {.backend = Backend::kReference});
  EXPECT_EQ(report.passed, 1);
  for (const auto& f : report.failures) ADD_FAILURE() << f;
}

}  // namespace
}  // namespace lamina

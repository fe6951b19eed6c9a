// The version, of these headers and of the library that was loaded.
#ifndef LAMINA_VERSION_H_
#define LAMINA_VERSION_H_

#include <string>
#include <string_view>
#include <vector>

#include "lamina/context.h"
#include "lamina/export.h"

// The build reads the project's version from these lines.
#define LAMINA_VERSION_MAJOR 0
#define LAMINA_VERSION_MINOR 1
#define LAMINA_VERSION_PATCH 0

namespace lamina {

struct Build {
  std::string_view version;   // "0.1.0"
  std::string_view commit;    // of the sources when they were configured, or "unknown"
  std::string_view compiler;  // "GCC 12.2.0"
  std::vector<Isa> isas;      // compiled in, whether this CPU runs them or not, widest first
  bool cuda = false;
};

LAMINA_API Build BuildInfo();
LAMINA_API std::string ToString(const Build& build);  // on one line

}  // namespace lamina

#endif  // LAMINA_VERSION_H_

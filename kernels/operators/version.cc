#include "lamina/version.h"

#include "kernels/operators/backends.h"

#define LAMINA_TEXT_OF(x) #x
#define LAMINA_TEXT(x) LAMINA_TEXT_OF(x)

namespace lamina {

Build BuildInfo() {
  Build build;
  build.version =
      LAMINA_TEXT(LAMINA_VERSION_MAJOR) "." LAMINA_TEXT(LAMINA_VERSION_MINOR) "." LAMINA_TEXT(LAMINA_VERSION_PATCH);
  build.commit = LAMINA_COMMIT;
#ifdef __clang__
  build.compiler = "clang " __clang_version__;
#else
  build.compiler = "GCC " __VERSION__;
#endif
  build.isas = SupportedIsas();
  const std::vector<Isa> other = UnsupportedIsas();
  build.isas.insert(build.isas.begin(), other.begin(), other.end());
  build.cuda = cuda::Built();
  return build;
}

std::string ToString(const Build& build) {
  std::string out =
      "lamina " + std::string(build.version) + " (commit " + std::string(build.commit) + "), SIMD targets";
  for (Isa isa : build.isas) out += " " + std::string(ToString(isa));
  return out + (build.cuda ? ", with CUDA, " : ", built without CUDA, ") + std::string(build.compiler);
}

}  // namespace lamina

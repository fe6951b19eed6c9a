// Exceptions and sentences of the C interface's functions: neither leaves a call.
#ifndef LAMINA_BINDINGS_C_GUARD_H_
#define LAMINA_BINDINGS_C_GUARD_H_

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lamina/c.h"
#include "lamina/status.h"

namespace lamina::c {

// Keeps the sentence for lamina_last_error, and gives back the code.
int32_t Fail(int32_t code, std::string_view sentence);

// Runs f, which returns a Status; whatever it throws stays here.
template <class F>
int32_t Guard(const F& f) {
  try {
    const Status s = f();
    return s.ok() ? LAMINA_OK : Fail(static_cast<int32_t>(s.code()), s.message());
  } catch (const std::bad_alloc&) {
    return Fail(LAMINA_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {  // a container asked for more than any memory holds
    return Fail(LAMINA_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return Fail(LAMINA_INTERNAL_ERROR, e.what());
  } catch (...) {
    return Fail(LAMINA_INTERNAL_ERROR, "an unknown exception");
  }
}

inline Status MustNotBeNull(const char* what) { return InvalidArgument(std::string(what) + " must not be null"); }

}  // namespace lamina::c

#endif  // LAMINA_BINDINGS_C_GUARD_H_

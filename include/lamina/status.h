// What a call says of itself: a code for programs and one sentence for people. Nothing here throws or aborts.
#ifndef LAMINA_STATUS_H_
#define LAMINA_STATUS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace lamina {

enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = 1,      // the caller asked for nonsense
  kNotBuilt = 2,             // sensible, but this build of the library lacks it
  kUnsupportedHardware = 3,  // built, but this machine cannot run it
  kOutOfMemory = 4,
  kDeviceError = 5,  // a device call failed; its own words are in the message
};

// Success, or a code with one sentence "<descriptor>: <rule>, got <values>".
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string message) { return {StatusCode::kInvalidArgument, std::move(message)}; }

// A value, or the Status that says why there is none. Reading the value of a failed Result is a bug of the caller.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit by design

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T operator*() && {
    return *std::move(value_);
  }  // by value, so that `for (auto& r : *Candidates(d))` outlives the call
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace lamina

#endif  // LAMINA_STATUS_H_

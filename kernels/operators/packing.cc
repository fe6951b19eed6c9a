#include "kernels/operators/packing.h"

#include <utility>

namespace lamina::packing {
namespace {

thread_local Session* current = nullptr;

}  // namespace

Session::Session() : outer_(std::exchange(current, this)) {}
Session::Session(Parts parts, std::shared_ptr<const void> owner)
    : parts_(std::move(parts)), owner_(std::move(owner)), outer_(std::exchange(current, this)) {}
Session::~Session() { current = outer_; }

AlignedBuffer Session::Next(size_t bytes) {
  if (!loading()) {
    AlignedBuffer buffer(bytes);
    if (buffer.data() != nullptr) parts_.emplace_back(buffer.data(), bytes);
    return buffer;
  }
  const std::string index = std::to_string(next_ + 1);
  if (next_ >= parts_.size() || parts_[next_].size() != bytes) {
    if (mismatch_.empty()) {
      mismatch_ = "part " + index + " must have " + std::to_string(bytes) + " bytes, got " +
                  (next_ < parts_.size() ? std::to_string(parts_[next_].size()) : "none");
    }
    return {};
  }
  return AlignedBuffer(parts_[next_++], owner_);
}

std::string Session::Mismatch() const {
  if (!mismatch_.empty() || next_ == parts_.size()) return mismatch_;
  return "must have " + std::to_string(next_) + " parts, got " + std::to_string(parts_.size());
}

AlignedBuffer Part(size_t bytes) { return current != nullptr ? current->Next(bytes) : AlignedBuffer(bytes); }
bool Loading() { return current != nullptr && current->loading(); }

Status Require(const std::string& implementation, Context& context) {
  // "cpu/AVX3/winograd_4x4"
  const size_t isa_at = implementation.find('/') + 1, name_at = implementation.rfind('/') + 1;
  const std::string backend = implementation.substr(0, implementation.find('/'));
  if (backend != ToString(Backend::kCpu) || name_at <= isa_at) return InvalidArgument("is altered: it names no kernel");
  const auto isa = ParseIsa(implementation.substr(isa_at, name_at - 1 - isa_at));
  if (!isa.ok()) return isa.status();
  const std::string& asked = context.implementation;
  if (context.backend != Backend::kCpu || (context.isa != Isa::kBest && context.isa != *isa) ||
      (!asked.empty() && asked != implementation && asked != implementation.substr(name_at))) {
    return InvalidArgument("was packed for " + implementation + ", the context asks for " +
                           std::string(ToString(context.backend)) + "/" + std::string(ToString(context.isa)) +
                           (asked.empty() ? "" : " and " + asked));
  }
  context.isa = *isa;
  context.implementation = implementation;
  return {};
}

}  // namespace lamina::packing

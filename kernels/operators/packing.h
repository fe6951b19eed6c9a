// The packed weights of an operator as a list of parts, so that they can be written to a file and found there again.
// While a Session lives in a thread, Part() gives memory to pack into, and notes it; or, of a session that loads, the
// next part of the file, packed already. A packer takes its parts in an order that follows from the descriptor and the
// SIMD target alone, fills every byte of them, and returns early where Loading().
#ifndef LAMINA_KERNELS_OPERATORS_PACKING_H_
#define LAMINA_KERNELS_OPERATORS_PACKING_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/aligned.h"
#include "lamina/context.h"
#include "lamina/status.h"

namespace lamina::packing {

using Parts = std::vector<std::span<const std::byte>>;

class Session {
 public:
  Session();  // packs
  // Loads `parts`, which live as long as `owner`.
  Session(Parts parts, std::shared_ptr<const void> owner);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  bool loading() const { return owner_ != nullptr; }
  AlignedBuffer Next(size_t bytes);
  // What has been packed so far.
  const Parts& parts() const { return parts_; }
  // Of a session that loads: "" or why the parts are not those that were asked for.
  std::string Mismatch() const;

 private:
  Parts parts_;
  std::shared_ptr<const void> owner_;
  size_t next_ = 0;
  std::string mismatch_;
  Session* outer_;
};

// As AlignedBuffer(bytes): null data when there is no memory.
AlignedBuffer Part(size_t bytes);
bool Loading();

// A file of packed weights, mapped.
struct File {
  std::string implementation, problem;
  Parts parts;
  std::shared_ptr<const void> owner;
};

// Sentences begin with the path. Written whole or not at all; the same contents give the same bytes.
Status Write(const std::string& path, const std::string& implementation, const std::string& problem,
             const Parts& parts);
// Refuses what is no such file, was cut short or altered, or comes from another version of the library or another kind
// of CPU.
Result<File> Read(const std::string& path);

// Makes `context` one that allows this implementation alone, or says why it asks for another.
Status Require(const std::string& implementation, Context& context);

}  // namespace lamina::packing

#endif  // LAMINA_KERNELS_OPERATORS_PACKING_H_

// Text in aligned columns for a terminal, and numbers as people read them.
#ifndef LAMINA_TOOLS_TABLE_H_
#define LAMINA_TOOLS_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lamina::tools {

class Table {
 public:
  // A heading that begins with '<' is that of a column aligned to the left.
  explicit Table(std::vector<std::string> headings);
  void Row(std::vector<std::string> cells);
  void Rule();  // a line across
  std::string ToString() const;

 private:
  std::vector<std::string> headings_;
  std::vector<bool> left_;
  std::vector<std::vector<std::string>> rows_;  // an empty one is a rule
};

std::string Fixed(double value, int digits);
// 4231976 as "4.23 M", three digits.
std::string Count(double value);
// Nanoseconds as "12.3 us", "1.23 ms".
std::string Time(double ns);

}  // namespace lamina::tools

#endif  // LAMINA_TOOLS_TABLE_H_

#include "tools/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace lamina::tools {
namespace {

// Three digits at least, more where the whole part has more.
std::string Digits(double value) {
  const double size = std::fabs(value);
  return Fixed(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

}  // namespace

Table::Table(std::vector<std::string> headings) : headings_(std::move(headings)) {
  for (std::string& heading : headings_) {
    left_.push_back(heading.starts_with('<'));
    if (left_.back()) heading.erase(0, 1);
  }
}

void Table::Row(std::vector<std::string> cells) {
  cells.resize(headings_.size());
  rows_.push_back(std::move(cells));
}

void Table::Rule() { rows_.emplace_back(); }

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < headings_.size(); ++c) {
    widths.push_back(headings_[c].size());
    for (const auto& row : rows_) {
      if (!row.empty()) widths[c] = std::max(widths[c], row[c].size());
    }
  }
  std::string out;
  const auto add = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string blanks(widths[c] - cells[c].size(), ' ');
      line += (c ? "  " : "") + (left_[c] ? cells[c] + blanks : blanks + cells[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  size_t total = 2 * (widths.size() - 1);
  for (size_t w : widths) total += w;
  add(headings_);
  out += std::string(total, '-') + "\n";
  for (const auto& row : rows_) {
    if (row.empty()) {
      out += std::string(total, '-') + "\n";
    } else {
      add(row);
    }
  }
  return out;
}

std::string Fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

std::string Count(double value) {
  for (const auto& [unit, name] : {std::pair{1e9, " G"}, {1e6, " M"}, {1e3, " k"}}) {
    if (std::fabs(value) >= unit * 0.9995) return Digits(value / unit) + name;
  }
  return Fixed(value, 0);
}

std::string Time(double ns) {
  if (ns >= 0.9995e9) return Digits(ns * 1e-9) + " s";
  if (ns >= 0.9995e6) return Digits(ns * 1e-6) + " ms";
  return Digits(ns * 1e-3) + " us";
}

}  // namespace lamina::tools

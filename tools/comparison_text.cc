// The comparison as a terminal's table and as JSON.
#include <cstdio>

#include "tools/comparison.h"
#include "tools/table.h"

namespace lamina::tools {
namespace {

using harness::Form;

std::string Ratio(double part, double whole) { return Fixed(part / whole, 3); }
std::string Times(double ratio) { return Fixed(1 / ratio, 1) + "x"; }
std::string Percent(double share) { return Fixed(100 * share, 0) + "%"; }

// Sums over the blocks, each as often as it occurs.
struct FormTotal {
  Form form;
  Cost cost;
  double ns = 0;
};
std::vector<FormTotal> TotalsOf(const Comparison& comparison) {
  std::vector<FormTotal> totals;
  for (Form form : {Form::kStandard, Form::kDwPw, Form::kPwDw, Form::kAsWritten}) {
    FormTotal total{form, {}, 0};
    for (const BlockResult& block : comparison.blocks) {
      const FormResult* found = nullptr;
      for (const FormResult& f : block.forms) {
        if (f.form == form) found = &f;
      }
      // A block that is no inverted residual is as written in its first separable form.
      if (found == nullptr && form == Form::kAsWritten) found = &block.forms[1];
      for (int64_t i = 0; i < block.count; ++i) total.cost += found->cost;
      total.ns += static_cast<double>(block.count) * found->ns();
    }
    if (form == Form::kAsWritten) {
      bool any = false;
      for (const BlockResult& block : comparison.blocks) any = any || block.forms.back().form == Form::kAsWritten;
      if (!any) break;
    }
    totals.push_back(total);
  }
  return totals;
}

double MacsRatio(const FormResult& form, const FormResult& standard) {
  return static_cast<double>(form.cost.macs) / static_cast<double>(standard.cost.macs);
}

// What theory gives; of an inverted residual, which has no such formula, the counts themselves.
harness::TheoryRatio TheoryOf(const FormResult& form, const FormResult& standard) {
  if (form.form != Form::kAsWritten) return harness::TheoryOf(form.problem);
  return {static_cast<double>(form.cost.params) / static_cast<double>(standard.cost.params), MacsRatio(form, standard)};
}

void BlockRows(Table& table, const BlockResult& block) {
  const FormResult& standard = block.forms.front();
  for (const FormResult& f : block.forms) {
    const bool first = &f == &standard;
    const auto theory = TheoryOf(f, standard);
    table.Row({first ? block.name + (block.count > 1 ? " x" + std::to_string(block.count) : "") : "",
               std::string(ToString(f.form)), Count(static_cast<double>(f.cost.params)),
               Count(static_cast<double>(f.cost.macs)), Fixed(f.ns() * 1e-6, 3), Fixed(f.gflops(), 0),
               Fixed(f.share.percent, 0), f.share.roof, first ? "" : Fixed(theory.params, 3),
               first ? "" : Fixed(theory.macs, 3), first ? "" : Ratio(f.ns(), standard.ns()),
               first ? "" : Times(f.ns() / standard.ns()), first ? f.implementation : Why(standard, f)});
  }
}

}  // namespace

std::string Why(const FormResult& standard, const FormResult& separable) {
  const double measured = separable.ns() / standard.ns(), theory = MacsRatio(separable, standard);
  std::string why;
  if (measured > 0.95 * theory && measured < 1.05 * theory) {
    why = "as theory says";
  } else if (separable.share.roof != "FMA") {
    why = "bound by " + separable.share.roof + ": " + Fixed(separable.cost.arithmetic_intensity(), 1) + " FLOP/B";
  } else if (measured > theory) {
    why = Fixed(separable.gflops(), 0) + " GFLOP/s against " + Fixed(standard.gflops(), 0);
    if (standard.implementation.find("winograd") != std::string::npos) {
      why += ", since Winograd's algorithm multiplies less there";
    }
  } else {
    why = "standard reaches only " + Fixed(standard.share.percent, 0) + "% of its roof";
  }
  if (separable.steps_ns > 0) {
    why += "; depthwise is " + Percent(separable.depthwise_macs) + " of MACs, " + Percent(separable.depthwise_time) +
           " of time";
    const double fused = 1 - separable.ns() / separable.steps_ns;
    if (fused > 0.03) why += "; one operator saves " + Percent(fused);
  }
  return why;
}

std::string ToText(const Comparison& c) {
  Table table({"<block", "<form", "params", "MACs", "ms", "GFLOP/s", "% roof", "<roof", "params/std", "MACs/std",
               "time/std", "faster", "<why, or implementation"});
  for (const BlockResult& block : c.blocks) {
    BlockRows(table, block);
    table.Rule();
  }
  const auto sums = [&](const std::string& name, const auto& totals) {
    for (const auto& total : totals) {
      const bool first = &total == &totals.front();
      const FormTotal& standard = totals.front();
      table.Row({first ? name : "", std::string(ToString(total.form)), Count(static_cast<double>(total.cost.params)),
                 Count(static_cast<double>(total.cost.macs)), Fixed(total.ns * 1e-6, 3),
                 Fixed(static_cast<double>(total.cost.flops()) / total.ns, 0), "", "",
                 first ? "" : Ratio(static_cast<double>(total.cost.params), static_cast<double>(standard.cost.params)),
                 first ? "" : Ratio(static_cast<double>(total.cost.macs), static_cast<double>(standard.cost.macs)),
                 first ? "" : Ratio(total.ns, standard.ns), first ? "" : Times(total.ns / standard.ns)});
    }
  };
  if (c.blocks.size() > 1) sums("all blocks", TotalsOf(c));
  std::string out;
  std::string summary;
  if (!c.networks.empty()) {
    std::vector<FormTotal> totals;
    for (const NetworkResult& n : c.networks) totals.push_back({n.form, n.cost, n.timing.median()});
    table.Rule();
    sums("whole network", totals);
    const FormTotal &standard = totals.front(), &separable = totals[1];
    char text[512];
    std::snprintf(text, sizeof(text),
                  "\n%s: depthwise-separable (dw_pw) instead of standard convolutions needs %.1f times fewer\n"
                  "multiply-accumulates and %.1f times fewer parameters, and runs %.1f times faster here (%.2f against "
                  "%.2f ms).\n",
                  c.title.c_str(), static_cast<double>(standard.cost.macs) / static_cast<double>(separable.cost.macs),
                  static_cast<double>(standard.cost.params) / static_cast<double>(separable.cost.params),
                  standard.ns / separable.ns, separable.ns * 1e-6, standard.ns * 1e-6);
    summary = text;
  }
  return table.ToString() + summary +
         "\nparams/std and MACs/std are what theory says (dw_pw: 1/oc + 1/k^2; pw_dw: 1/k^2 + 1/ic and s^2/k^2 + 1/ic; "
         "in sums: "
         "counted),\ntime/std is what was measured, in turns in one process. Percentages are of the roof that was "
         "measured "
         "first.\n";
}

void AddTo(JsonReport& report, const Comparison& c) {
  report.context()["comparison"] = {{"title", c.title}, {"images", c.images}};
  for (const BlockResult& block : c.blocks) {
    const FormResult& standard = block.forms.front();
    for (const FormResult& f : block.forms) {
      const auto theory = TheoryOf(f, standard);
      auto& row =
          report.Add(block.name + "/" + std::string(ToString(f.form)), f.implementation, f.timing, f.cost, block.count);
      row["kind"] = "block";
      row["block"] = block.name;
      row["form"] = ToString(f.form);
      row["problem"] = ToString(f.problem);
      row["theory_params_ratio"] = theory.params;
      row["theory_macs_ratio"] = theory.macs;
      row["time_ratio"] = f.ns() / standard.ns();
      if (&f == &standard) continue;
      row["why"] = Why(standard, f);
      if (f.steps_ns > 0) {
        row["depthwise_share_of_macs"] = f.depthwise_macs;
        row["depthwise_share_of_time"] = f.depthwise_time;
        row["steps_time"] = f.steps_ns * 1e-3;
      }
    }
  }
  for (const NetworkResult& n : c.networks) {
    auto& row = report.Add("network/" + std::string(ToString(n.form)), "", n.timing, n.cost);
    row["kind"] = "network";
    row["form"] = ToString(n.form);
    row["time_ratio"] = n.timing.median() / c.networks.front().timing.median();
  }
}

}  // namespace lamina::tools

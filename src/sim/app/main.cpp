#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>

#include "common/obs/log.hpp"
#include "sim/world/campaign.hpp"
#include "sim/world/world.hpp"
#ifdef EDUCLOUD_SIM_NODES
#include "sim/nodes/nodes.hpp"
#endif

namespace {

using namespace educloud;

constexpr const char* kUsage =
    R"(educloud-sim --seeds N [--from S] [--jobs J]   runs N seeds, the first is S (1)
educloud-sim --seed S [-v | -vv]               runs one; -v tells what happens, -vv the daemons' logs too
educloud-sim nodes ...                         lightweight nodes on a real broker
  --calm      without faults
  --failures N  ends after so many failing seeds (10)
All daemons of a cloud run in one process over a simulated broker and clock; a seed decides everything, so
each run can be repeated. Exit status 0: every property held for every seed.
)";

struct Arguments {
  std::optional<std::uint64_t> seed;
  sim::CampaignOptions campaign;
  int verbose = 0;
};

std::optional<std::uint64_t> number(const char* text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc{} || *end != '\0') return std::nullopt;
  return value;
}

std::optional<Arguments> parse(int argc, char** argv) {
  Arguments out;
  out.campaign.jobs = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  bool any = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "-v" || word == "-vv") {
      out.verbose = static_cast<int>(word.size()) - 1;
      continue;
    }
    if (word == "--calm") {
      out.campaign.faults = false;
      continue;
    }
    const auto value = i + 1 < argc ? number(argv[i + 1]) : std::nullopt;
    if (!value) return std::nullopt;
    ++i;
    if (word == "--seed") {
      out.seed = *value;
    } else if (word == "--seeds") {
      out.campaign.count = *value;
    } else if (word == "--from") {
      out.campaign.first = *value;
    } else if (word == "--jobs") {
      out.campaign.jobs = static_cast<int>(std::min<std::uint64_t>(*value, 64));
    } else if (word == "--failures") {
      out.campaign.most_failures = std::clamp<std::uint64_t>(*value, 1, 60);
    } else {
      return std::nullopt;
    }
    any = true;
  }
  return any ? std::optional(out) : std::nullopt;
}

int replay(std::uint64_t seed, const Arguments& arguments) {
  if (arguments.verbose > 1) obs::init_log("sim", "debug");
  sim::RunOptions options;
  options.folder = sim::default_scratch();
  options.faults = arguments.campaign.faults;
  if (arguments.verbose > 0)
    options.on_line = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  const auto outcome = sim::run_world(seed, options);
  std::printf("seed %llu: %s; %.0f virtual s, %llu events, digest %016llx\n",
              static_cast<unsigned long long>(seed), outcome.defect.empty() ? "ok" : outcome.defect.c_str(),
              static_cast<double>(outcome.virtual_ms) / 1000, static_cast<unsigned long long>(outcome.events),
              static_cast<unsigned long long>(outcome.digest));
  return outcome.defect.empty() ? 0 : 1;
}

int campaign(sim::CampaignOptions options) {
  options.scratch = sim::default_scratch();
  const auto report = sim::run_campaign(options);
  for (const auto& failure : report.failures) {
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(failure.seed), failure.defect.c_str());
  }
  if (!report.failures.empty())
    std::printf("replay: educloud-sim --seed %llu -v\n",
                static_cast<unsigned long long>(report.failures.front().seed));
  std::printf("injected:");
  for (std::size_t i = 0; i < sim::kFaults.size(); ++i) {
    std::printf("%s %s %llu", i > 0 ? "," : "", sim::kFaults.at(i),
                static_cast<unsigned long long>(report.faults.at(i)));
  }
  std::printf("\n%llu seeds, %zu failed; %.1f virtual hours, %llu events in %.1f s\n",
              static_cast<unsigned long long>(report.runs), report.failures.size(), report.virtual_hours,
              static_cast<unsigned long long>(report.events), report.seconds);
  return report.failures.empty() && report.runs == options.count ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
#ifdef EDUCLOUD_SIM_NODES
  if (argc > 1 && std::string_view(argv[1]) == "nodes") return educloud::sim::run_nodes(argc - 1, argv + 1);
#endif
  const auto arguments = parse(argc, argv);
  if (!arguments) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  obs::init_log("sim", "off");
  return arguments->seed ? replay(*arguments->seed, *arguments) : campaign(arguments->campaign);
}

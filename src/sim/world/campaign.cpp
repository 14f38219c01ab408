#include "sim/world/campaign.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>

#include "sim/world/world.hpp"

namespace educloud::sim {
namespace {

constexpr int kMostJobs = 64;
constexpr std::size_t kMostFailures = 64;
constexpr std::size_t kTextBytes = 600;

struct Told {
  std::uint64_t seed;
  std::array<char, kTextBytes> text;
};

/// Shared by the processes of a campaign.
struct Board {
  std::atomic<std::uint64_t> next, runs, events, virtual_ms;
  std::atomic<std::size_t> failures;
  std::array<std::atomic<std::uint64_t>, kFaults.size()> faults;
  std::array<std::atomic<std::uint64_t>, kMostJobs> at;  ///< the seed a process works on; 0: none
  std::array<Told, kMostFailures> told;
};

void tell_failure(Board& board, std::uint64_t seed, const std::string& text) {
  const auto place = board.failures.fetch_add(1);
  if (place >= kMostFailures) return;
  auto& told = board.told.at(place);
  told.seed = seed;
  std::strncpy(told.text.data(), text.c_str(), kTextBytes - 1);
}

void work(Board& board, int job, const CampaignOptions& options) {
  RunOptions run;
  run.folder = options.scratch / std::to_string(job);
  run.faults = options.faults;
  auto& at = board.at.at(static_cast<std::size_t>(job));
  while (board.failures < options.most_failures) {
    const auto seed = board.next.fetch_add(1);
    if (seed >= options.first + options.count) break;
    at = seed;
    const auto outcome = run_world(seed, run);
    at = 0;
    ++board.runs;
    board.events += outcome.events;
    board.virtual_ms += static_cast<std::uint64_t>(outcome.virtual_ms);
    for (std::size_t i = 0; i < kFaults.size(); ++i) board.faults.at(i) += outcome.faults.at(i);
    if (!outcome.defect.empty()) tell_failure(board, seed, outcome.defect);
  }
}

}  // namespace

std::filesystem::path default_scratch() {
  const char* wanted = std::getenv("EDUCLOUD_SIM_SCRATCH");
  std::error_code ignored;
  const std::filesystem::path base = wanted != nullptr                              ? wanted
                                     : std::filesystem::exists("/dev/shm", ignored) ? "/dev/shm"
                                                                                    : "/tmp";
  return base / ("educloud-sim." + std::to_string(::getpid()));
}

CampaignReport run_campaign(const CampaignOptions& options) {
  const auto begun = std::chrono::steady_clock::now();
  void* memory = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return {};
  auto& board = *new (memory) Board{};
  board.next = options.first;
  const int jobs = std::clamp(options.jobs, 1, kMostJobs);
  std::vector<pid_t> children;
  for (int job = 0; job < jobs; ++job) {
    const pid_t child = ::fork();
    if (child == 0) {
      work(board, job, options);
      ::_exit(0);
    }
    if (child > 0) children.push_back(child);
  }
  for (std::size_t job = 0; job < children.size(); ++job) {
    int status = 0;
    ::waitpid(children[job], &status, 0);
    if (status != 0) {
      tell_failure(board, board.at.at(job), "the process died: wait status " + std::to_string(status));
      ++board.runs;
    }
  }
  CampaignReport report;
  report.runs = board.runs;
  report.events = board.events;
  for (std::size_t i = 0; i < kFaults.size(); ++i) report.faults.at(i) = board.faults.at(i);
  report.virtual_hours = static_cast<double>(board.virtual_ms) / 3.6e6;
  for (std::size_t i = 0; i < std::min<std::size_t>(board.failures, kMostFailures); ++i)
    report.failures.push_back({board.told.at(i).seed, board.told.at(i).text.data()});
  std::sort(report.failures.begin(), report.failures.end(),
            [](const Failure& a, const Failure& b) { return a.seed < b.seed; });
  ::munmap(memory, sizeof(Board));
  std::error_code ignored;
  std::filesystem::remove_all(options.scratch, ignored);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return report;
}

}  // namespace educloud::sim

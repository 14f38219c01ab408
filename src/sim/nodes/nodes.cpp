#include "sim/nodes/nodes.hpp"

#include <sys/resource.h>

#include <condition_variable>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>

#include "common/base/limits.hpp"
#include "common/obs/log.hpp"
#include "common/sys/signals.hpp"
#include "sim/nodes/crew.hpp"
#include "sim/nodes/light_node.hpp"

namespace educloud::sim {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostNodes = 1000;  // as `educloud init`
constexpr std::size_t kConnectAtOnce = 20;
constexpr std::chrono::seconds kConnectPatience{20};
constexpr std::chrono::milliseconds kTick{250};
constexpr rlim_t kFilesPerNode = 12;

struct Arguments {
  fs::path config_dir;
  std::size_t count = 0;
  Hardware hardware;
  int workers = 16;
  fs::path trace, ready_file;
  std::string log_level = "warn";
};

/// nc.conf, or the first `count` of nc-*.conf by name.
Result<std::vector<nc::Config>> load_configs(const Arguments& arguments) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(arguments.config_dir, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name == "nc.conf" || (name.starts_with("nc-") && name.ends_with(".conf")))
      files.push_back(at->path());
  }
  if (error) return fail(errno_error("read " + arguments.config_dir.string(), error.value()));
  std::sort(files.begin(), files.end());
  const std::size_t wanted = arguments.count == 0 ? files.size() : arguments.count;
  if (files.empty() || wanted > files.size() || wanted > kMostNodes) {
    return fail(ErrorCode::invalid_argument,
                arguments.config_dir.string() + " has " + std::to_string(files.size()) +
                    " configs of nodes, wanted are " + std::to_string(wanted) + ", at most " +
                    std::to_string(kMostNodes) + ": `educloud init --in-place --node NAME ...` makes them",
                "count");
  }
  files.resize(wanted);
  std::vector<nc::Config> configs;
  for (const auto& file : files) {
    auto config = nc::load_config(file);
    if (!config) return fail(config.error());
    configs.push_back(std::move(*config));
  }
  return configs;
}

/// Two sockets and a database each.
void allow_files(std::size_t nodes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min(limit.rlim_max, std::max<rlim_t>(limit.rlim_cur, nodes * kFilesPerNode + 256));
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

/// All nodes, and the threads they share.
class Nodes {
 public:
  explicit Nodes(std::size_t count) : crew_(count, [this](std::size_t i) { nodes_.at(i)->work(); }) {}
  ~Nodes() { stop(); }

  Result<> open(std::vector<nc::Config> configs, const Arguments& arguments) {
    if (!arguments.trace.empty()) {
      auto trace = StatusTrace::open(arguments.trace);
      if (!trace) return fail(trace.error());
      trace_ = std::move(*trace);
    }
    for (std::size_t i = 0; i < configs.size(); ++i) {
      auto node = LightNode::open(
          {std::move(configs[i]), arguments.hardware, i, trace_.get(), [this, i] { crew_.call(i); }}, clock_);
      if (!node) return fail(node.error());
      nodes_.push_back(std::move(*node));
    }
    return {};
  }

  Result<> start(int workers) {
    crew_.start(workers);
    // Some at a time: a broker that is asked for thousands of connections at once answers none in time.
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (auto ok = nodes_[i]->start(); !ok) return ok;
      if ((i + 1) % kConnectAtOnce == 0 || i + 1 == nodes_.size()) wait_ready(i + 1);
    }
    ticker_ = std::jthread([this](std::stop_token stop) { tick(std::move(stop)); });
    heart_ = std::jthread([this](std::stop_token stop) { beat(std::move(stop)); });
    return {};
  }

  void stop() {
    for (auto* thread : {&heart_, &ticker_}) {
      if (!thread->joinable()) continue;
      thread->request_stop();
      thread->join();
    }
    crew_.stop();
    for (auto& node : nodes_) node->stop();
  }

  std::size_t ready() const {
    return static_cast<std::size_t>(
        std::count_if(nodes_.begin(), nodes_.end(), [](const auto& node) { return node->is_ready(); }));
  }
  int vms_started() const {
    int all = 0;
    for (const auto& node : nodes_) all += node->vms_started();
    return all;
  }

 private:
  void wait_ready(std::size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + kConnectPatience;
    while (ready() < count && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }

  void tick(std::stop_token stop) {
    while (pause(kTick, stop)) {
      for (auto& node : nodes_) node->tick();
    }
  }

  /// All at once at the start, then spread over the interval.
  void beat(std::stop_token stop) {
    for (auto& node : nodes_) node->beat();
    const auto gap =
        std::chrono::duration_cast<std::chrono::microseconds>(limits::kHeartbeat) / nodes_.size();
    for (std::size_t i = 0; pause(gap, stop); i = (i + 1) % nodes_.size()) nodes_[i]->beat();
  }

  static bool pause(std::chrono::microseconds time, const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    never.wait_for(lock, stop, time, [] { return false; });
    return !stop.stop_requested();
  }

  const SystemClock clock_;
  std::unique_ptr<StatusTrace> trace_;
  std::vector<std::unique_ptr<LightNode>> nodes_;
  Crew crew_;
  std::jthread ticker_, heart_;
};

int run(const Arguments& arguments) {
  auto configs = load_configs(arguments);
  if (!configs) {
    std::cerr << "educloud-sim nodes: " << configs.error().message << "\n";
    return 1;
  }
  const std::size_t count = configs->size();
  allow_files(count);
  Nodes nodes(count);
  auto ok = nodes.open(std::move(*configs), arguments);
  if (ok) ok = nodes.start(arguments.workers);
  if (!ok) {
    std::cerr << "educloud-sim nodes: " << ok.error().message << "\n";
    return 1;
  }
  std::cout << nlohmann::json{{"nodes", count}, {"connected", nodes.ready()}}.dump() << std::endl;
  if (!arguments.ready_file.empty()) std::ofstream(arguments.ready_file) << nodes.ready() << "\n";
  sys::wait_for_stop_signal();
  nodes.stop();
  std::cout << nlohmann::json{{"vms_started", nodes.vms_started()}}.dump() << std::endl;
  return 0;
}

}  // namespace

int run_nodes(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Lightweight nodes: real bus and inbox, a hypervisor that does nothing", "educloud-sim nodes");
  app.add_option("--config-dir", arguments.config_dir, "Where `educloud init` put nc-*.conf")->required();
  app.add_option("--count", arguments.count, "How many of them; 0: all")->check(CLI::Range(0, 1000));
  app.add_option("--cpus", arguments.hardware.cpus, "Of each")->check(CLI::Range(1, 4096));
  app.add_option("--memory-mib", arguments.hardware.memory_mib, "Of each")->check(CLI::Range(64, 4'000'000));
  app.add_option("--workers", arguments.workers, "Threads that do the nodes' work")
      ->check(CLI::Range(1, 256));
  app.add_option("--trace", arguments.trace, "A file for one line per status published");
  app.add_option("--ready-file", arguments.ready_file, "Written once all are connected, with their number");
  app.add_option("--log-level", arguments.log_level)
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  sys::block_stop_signals();
  obs::init_log("nodes", arguments.log_level);
  return run(arguments);
}

}  // namespace educloud::sim

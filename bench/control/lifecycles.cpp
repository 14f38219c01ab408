#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>

#include "control/driver.hpp"

namespace educloud::bench {
namespace {

constexpr std::chrono::minutes kPatience{10};

/// Follows the API's event stream and says what became of each task.
class Events {
 public:
  using OnTask = std::function<void(const nlohmann::json&)>;
  Events(const Api& api, OnTask on_task) : api_(api), on_task_(std::move(on_task)) {
    thread_ = std::jthread([this](std::stop_token stop) { follow(std::move(stop)); });
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds{10}, [&] { return connected_; });
  }
  bool ended() const { return ended_; }

 private:
  void follow(std::stop_token stop) {
    http::Client client(api_.url);
    http::ClientRequest request;
    request.target = "/clc/api/1.0/events";
    request.headers = api_.headers();
    const auto on_head = [this](const http::ClientResponse& head) -> Result<> {
      const std::lock_guard lock(mutex_);
      connected_ = head.status == 200;
      changed_.notify_all();
      return {};
    };
    (void)client.download(
        request, on_head, [this](std::span<const char> data) { return take(data); }, stop);
    ended_ = true;
  }

  Result<> take(std::span<const char> data) {
    buffer_.append(data.data(), data.size());
    std::size_t from = 0;
    for (std::size_t end; (end = buffer_.find('\n', from)) != std::string::npos; from = end + 1) {
      const std::string_view line = std::string_view(buffer_).substr(from, end - from);
      if (!line.starts_with("data: {\"")) continue;
      const auto task = nlohmann::json::parse(line.substr(6), nullptr, false);
      if (task.is_object() && task.contains("tid")) on_task_(task);
    }
    buffer_.erase(0, from);
    return {};
  }

  const Api& api_;
  const OnTask on_task_;
  std::string buffer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool connected_ = false;
  std::atomic<bool> ended_{false};
  std::jthread thread_;
};

/// All desktops of one run.
class Run {
 public:
  Run(const Api& api, std::string imgid, int count, std::string mode, const std::string& trace)
      : api_(api), imgid_(std::move(imgid)), count_(count), mode_(std::move(mode)) {
    if (!trace.empty()) trace_ = std::fopen(trace.c_str(), "we");
    for (int i = 0; i < (mode_ == "one" ? 1 : count); ++i) jobs_.push_back({});
  }
  ~Run() {
    if (trace_ != nullptr) std::fclose(trace_);
  }

  void on_task(const nlohmann::json& task) {
    const auto now = std::chrono::steady_clock::now();
    const std::string insid = task["insid"], state = task["state"], phase = task["phase"];
    if (trace_ != nullptr) {
      const auto wall = std::chrono::duration_cast<std::chrono::microseconds>(
          std::chrono::system_clock::now().time_since_epoch());
      std::fprintf(trace_, "%lld %s %s/%s\n", static_cast<long long>(wall.count()),
                   task["tid"].get<std::string>().c_str(), phase.c_str(), state.c_str());
    }
    const std::lock_guard lock(mutex_);
    // Others may have desktops too. The name is told from the first event on, but no more after the end.
    const bool is_ours = task["instance_name"].get<std::string>().starts_with(prefix_);
    if (!is_ours && !desktops_.contains(insid)) return;
    auto& one = desktops_[insid];
    if (task["failed"] == 1 && failure_.empty())
      failure_ = insid + ": " + task["errormsg"].get<std::string>();
    if (phase == "editing" && state == "running" && one.running == Instant{}) {
      one.running = now;
      ++running_;
      last_running_ = now;
      if (mode_ != "hold") jobs_.push_back({insid});
    }
    if (state == "gone" && one.gone == Instant{}) {
      one.gone = last_gone_ = now;
      ++gone_;
      if (mode_ == "one" && gone_ < count_) jobs_.push_back({});
    }
    changed_.notify_all();
  }

  /// One client: takes jobs until all desktops are gone.
  void work() {
    http::Client client(api_.url);
    while (auto job = next()) {
      auto done = job->insid.empty() ? define(client) : end(client, job->insid);
      if (done) continue;
      const std::lock_guard lock(mutex_);
      if (failure_.empty()) failure_ = done.error().message;
      changed_.notify_all();
    }
  }

  void end_all() {
    const std::lock_guard lock(mutex_);
    for (const auto& [insid, one] : desktops_) jobs_.push_back({insid});
    changed_.notify_all();
  }

  /// False: something failed, or it takes too long.
  bool wait_running() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return running_ >= count_ || !failure_.empty(); }) &&
           failure_.empty();
  }
  Result<> failure() {
    const std::lock_guard lock(mutex_);
    if (!failure_.empty()) return fail(ErrorCode::internal, failure_);
    if (gone_ >= count_) return {};
    return fail(ErrorCode::timeout, std::to_string(running_) + " ran and " + std::to_string(gone_) +
                                        " ended of " + std::to_string(count_));
  }

  nlohmann::json result() {
    const std::lock_guard lock(mutex_);
    std::vector<double> accepted, whole;
    Instant first = Instant::max();
    for (const auto& [insid, one] : desktops_) {
      if (one.posted == Instant{}) continue;
      first = std::min(first, one.posted);
      if (one.running != Instant{}) accepted.push_back(seconds_between(one.posted, one.running));
      if (one.gone != Instant{}) whole.push_back(seconds_between(one.posted, one.gone));
    }
    nlohmann::json out{{"count", count_}};
    out["accept_p50_s"] = percentile(accepted, 0.5);
    out["accept_p99_s"] = percentile(accepted, 0.99);
    out["whole_p50_s"] = percentile(whole, 0.5);
    out["running_s"] = seconds_between(first, last_running_);
    out["seconds"] = gone_ > 0 ? seconds_between(first, last_gone_) : 0.0;
    return out;
  }

 private:
  struct Desktop {
    Instant posted{}, running{}, gone{};
  };
  struct Job {
    std::string insid;  ///< empty: define a new one
  };

  std::optional<Job> next() {
    std::unique_lock lock(mutex_);
    const bool ready = changed_.wait_for(
        lock, kPatience, [&] { return !jobs_.empty() || gone_ >= count_ || !failure_.empty(); });
    if (!ready || jobs_.empty() || !failure_.empty()) return std::nullopt;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    return job;
  }

  Result<> define(http::Client& client) {
    http::ClientRequest request;
    request.method = "POST";
    request.target = "/clc/api/1.0/vms";
    request.headers = api_.headers();
    nlohmann::json body{{"imgid", imgid_}, {"kind", "TVD"}, {"memory_mib", 64}, {"cpus", 1}};
    body["name"] = prefix_ + std::to_string(++named_);
    request.body = body.dump();
    const auto posted = std::chrono::steady_clock::now();
    auto answer = client.send(request);
    if (!answer) return fail(answer.error());
    auto vm = answer->json();
    if (!vm) return fail(vm.error());
    const std::lock_guard lock(mutex_);
    desktops_[(*vm)["insid"].get<std::string>()].posted = posted;
    return {};
  }

  Result<> end(http::Client& client, const std::string& insid) {
    http::ClientRequest request;
    request.method = "DELETE";
    request.target = "/clc/api/1.0/vms/" + insid;
    request.headers = api_.headers();
    auto answer = client.send(request);
    if (!answer) return fail(answer.error());
    return answer->ok();
  }

  const Api& api_;
  const std::string imgid_;
  const int count_;
  const std::string mode_;
  const std::string prefix_ = "bench" + std::to_string(::getpid()) + "-";
  std::atomic<int> named_{0};
  std::FILE* trace_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::map<std::string, Desktop> desktops_;
  int running_ = 0, gone_ = 0;
  Instant last_running_{}, last_gone_{};
  std::string failure_;
};

}  // namespace

Result<> lifecycles(const Api& api, const Words& words) {
  const std::string mode = words.at(3);
  Run run(api, words.at(0), std::stoi(words.at(1)), mode, words.size() > 4 ? words[4] : "");
  Events events(api, [&](const nlohmann::json& task) { run.on_task(task); });
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < std::stoi(words.at(2)); ++i) clients.emplace_back([&] { run.work(); });
    if (mode == "hold" && run.wait_running()) {
      auto news = run.result();
      news["held"] = true;
      say(news);
      for (std::string line; std::getline(std::cin, line);) continue;
      run.end_all();
    }
  }
  if (events.ended()) return fail(ErrorCode::unavailable, "the event stream ended: the reader was too slow");
  if (auto ok = run.failure(); !ok) return ok;
  say(run.result());
  return {};
}

}  // namespace educloud::bench

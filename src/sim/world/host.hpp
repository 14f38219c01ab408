#pragma once

#include <functional>
#include <string>

#include "common/base/result.hpp"
#include "sim/bus/process.hpp"
#include "sim/bus/rng.hpp"

namespace educloud::sim {

/// What a host needs of its world.
struct Surroundings {
  Timeline& timeline;
  /// Something that must never be: the run has failed.
  std::function<void(const std::string&)> defect;
  /// A line of the story, for -v.
  std::function<void(const std::string&)> tell;
};

/// One daemon on one host. Its process may be killed and started again; what it has on disk stays.
class Host : public Process {
 public:
  Host(Surroundings surroundings, std::string name, std::uint64_t seed)
      : world_(std::move(surroundings)), name_(std::move(name)), rng_(seed), clock_(world_.timeline, 0) {}

  const std::string& name() const { return name_; }
  bool is_up() const { return life_ != nullptr; }
  HostClock& clock() { return clock_; }

  void start();
  /// kill -9.
  void crash();
  /// SIGSTOP, and SIGCONT after that time: what would have happened meanwhile happens then.
  void pause(std::int64_t for_ms);
  bool is_paused() const { return world_.timeline.now_ms() < paused_until_; }

  double crash_chance = 0;  ///< at each crash point
  std::function<void()> on_crash = [] {};

  const Life& life() const override { return life_; }
  void crash_point() override;
  void run(const std::function<void()>& what) override;

 protected:
  virtual Result<> boot() = 0;
  /// Ends the process without a word to anybody.
  virtual void wreck() = 0;
  void every(std::int64_t period_ms, std::function<void()> what);

  Surroundings world_;
  const std::string name_;
  Rng rng_;
  HostClock clock_;

 private:
  Life life_;
  std::int64_t paused_until_ = 0;
  int depth_ = 0;
};

}  // namespace educloud::sim

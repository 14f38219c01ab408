#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "common/base/result.hpp"

namespace educloud::obs {

using Labels = std::map<std::string, std::string>;

/// The process's metrics, written every `interval` to `<prefix>/config/metrics/<process>.prom` for
/// node_exporter's textfile collector: beside, then renamed, so that a scrape never sees half a file.
/// Names are `educloud_<daemon>_<noun>_<unit>`. All calls are thread-safe and cheap enough for hot paths.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// Adds to a counter, which is made at its first use. `name` ends in "_total".
  void count(const std::string& name, const std::string& help, double by = 1, const Labels& labels = {});
  void gauge(const std::string& name, const std::string& help, double value, const Labels& labels = {});
  /// Seconds into a histogram; `name` ends in "_seconds".
  void observe(const std::string& name, const std::string& help, double seconds, const Labels& labels = {});

  /// Starts the writer thread. It also keeps `educloud_<process>_up` and resident memory.
  Result<> start(const std::filesystem::path& prefix, const std::string& process,
                 std::chrono::seconds interval = std::chrono::seconds{5});
  /// Writes a last time and stops. Idempotent.
  void stop();
  /// The text exposition format, for tests.
  std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The process's one registry.
Metrics& metrics();

}  // namespace educloud::obs

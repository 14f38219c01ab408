#include "common/obs/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <thread>

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::obs {
namespace {

const prometheus::Histogram::BucketBoundaries& buckets() {
  static const prometheus::Histogram::BucketBoundaries kBuckets{0.005, 0.025, 0.1, 0.5, 1,   2.5,
                                                                5,     10,    30,  60,  300, 1800};
  return kBuckets;
}

/// Resident memory of this process in bytes, from /proc/self/statm; 0 if it cannot be read.
double resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  if (!(statm >> size >> resident)) return 0;
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  std::mutex family_mutex;
  std::map<std::string, prometheus::Family<prometheus::Counter>*> counters;
  std::map<std::string, prometheus::Family<prometheus::Gauge>*> gauges;
  std::map<std::string, prometheus::Family<prometheus::Histogram>*> histograms;

  std::filesystem::path file;
  std::string process;
  std::chrono::seconds interval{5};
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  std::thread writer;

  template <class Family, class Builder>
  Family& family(std::map<std::string, Family*>& known, Builder builder, const std::string& name,
                 const std::string& help) {
    const std::lock_guard lock(family_mutex);
    auto& slot = known[name];
    if (slot == nullptr) slot = &builder().Name(name).Help(help).Register(registry);
    return *slot;
  }
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() {
  stop();
}

void Metrics::count(const std::string& name, const std::string& help, double by, const Labels& labels) {
  impl_->family(impl_->counters, prometheus::BuildCounter, name, help).Add(labels).Increment(by);
}

void Metrics::gauge(const std::string& name, const std::string& help, double value, const Labels& labels) {
  impl_->family(impl_->gauges, prometheus::BuildGauge, name, help).Add(labels).Set(value);
}

void Metrics::observe(const std::string& name, const std::string& help, double seconds,
                      const Labels& labels) {
  impl_->family(impl_->histograms, prometheus::BuildHistogram, name, help)
      .Add(labels, buckets())
      .Observe(seconds);
}

std::string Metrics::text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

Result<> Metrics::start(const std::filesystem::path& prefix, const std::string& process,
                        std::chrono::seconds interval) {
  const auto folder = prefix / "config" / "metrics";
  if (auto ok = sys::make_directories(folder); !ok) return ok;
  impl_->file = folder / (process + ".prom");
  impl_->process = process;
  impl_->interval = interval;
  const auto write_once = [this] {
    gauge("educloud_" + impl_->process + "_up", "1 while the daemon runs, 0 after an orderly stop.",
          impl_->stopping ? 0 : 1);
    gauge("educloud_" + impl_->process + "_resident_memory_bytes", "Resident memory of the daemon.",
          resident_bytes());
    return sys::write_file_atomically(impl_->file, text());
  };
  if (auto ok = write_once(); !ok) return ok;
  impl_->writer = std::thread([this, write_once] {
    std::unique_lock lock(impl_->mutex);
    bool last = false;
    while (!last) {
      impl_->wake.wait_for(lock, impl_->interval, [this] { return impl_->stopping; });
      last = impl_->stopping;
      if (auto ok = write_once(); !ok) warn("metrics.not_written", {{"error", ok.error().message}});
    }
  });
  return {};
}

void Metrics::stop() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  if (impl_->writer.joinable()) impl_->writer.join();
}

Metrics& metrics() {
  static Metrics instance;
  return instance;
}

}  // namespace educloud::obs

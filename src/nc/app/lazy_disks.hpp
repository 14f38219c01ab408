#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "nc/app/image_tools.hpp"
#include "nc/cache/nbd_export.hpp"
#include "nc/domain/paths.hpp"

namespace educloud::nc {

struct LazyOptions {
  std::optional<unsigned> group = {};  ///< of the sockets, so that QEMU's user may connect
  bool proxy = true;                   ///< nbd_proxy.hpp; without it guests do not outlive our restart
};

/// The images that instances read while they still arrive: for each a reader of the cache that is opened anew
/// when its fill ended early, and a socket for QEMU. Thread-safe; `images` must outlive it.
class LazyDisks {
 public:
  LazyDisks(Layout layout, ImageTools& images, LazyOptions options)
      : layout_(std::move(layout)), images_(images), options_(options) {}
  ~LazyDisks() { stop(); }

  /// The fill runs when this returns. Open already: success. Returns the size of the disk.
  Result<std::uint64_t> open(const InstanceId& insid, const FillRequest& request, std::stop_token stop);
  /// open(), and the socket is there.
  Result<std::uint64_t> serve(const InstanceId& insid, const FillRequest& request, std::stop_token stop);
  /// serve() in the background, again and again until it works: the guest of before our restart waits for it.
  void restore(const InstanceId& insid, const FillRequest& request);
  /// The instance's sockets go. Not there: nothing happens.
  void drop(const InstanceId& insid);
  /// All of them go, but for the proxies: guests wait for the next start. Idempotent.
  void stop();

 private:
  /// `replace`: a disk of another version goes; else it is a conflict.
  Result<std::uint64_t> open(const InstanceId& insid, const FillRequest& request, std::stop_token stop,
                             bool replace);
  Result<std::uint64_t> serve(const InstanceId& insid, const FillRequest& request, std::stop_token stop,
                              bool replace);
  Result<> export_disk(const InstanceId& insid);

  class LastingReader;
  struct Disk {
    std::shared_ptr<LastingReader> reader;
    std::unique_ptr<NbdExport> server;
    std::jthread restorer;  ///< of restore()
  };

  const Layout layout_;
  ImageTools& images_;
  const LazyOptions options_;
  std::mutex mutex_;
  std::map<std::string, Disk> disks_;  // under mutex_
  bool stopped_ = false;               // under mutex_
};

}  // namespace educloud::nc

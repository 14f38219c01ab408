#include "nc/app/lazy_disks.hpp"

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/nbd_proxy.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::milliseconds kFirstPause{500};
constexpr std::chrono::milliseconds kLastPause{10'000};
/// A guest's read that cannot be answered for this long gets an I/O error.
constexpr std::chrono::minutes kPatience{30};

}  // namespace

/// A cc that is away for a while must not look like a broken disk to the guest.
class LazyDisks::LastingReader : public NodeCache::Reader {
 public:
  LastingReader(ImageTools& images, FillRequest request, std::shared_ptr<NodeCache::Reader> reader)
      : images_(images), request_(std::move(request)), reader_(std::move(reader)) {}

  std::uint64_t disk_bytes() const override { return current()->disk_bytes(); }
  bool is_complete() const override { return current()->is_complete(); }
  bool is_of(const FillRequest& request) const {
    const std::lock_guard lock(mutex_);
    return request_.imgid == request.imgid && request_.version == request.version &&
           request_.digest == request.digest;
  }
  /// A later command may have brought a grant that is valid longer.
  void renew(const FillRequest& request) {
    const std::lock_guard lock(mutex_);
    request_ = request;
  }

  Result<> read(std::uint64_t offset, std::span<char> out, std::stop_token stop) override {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    auto wait = kFirstPause;
    for (;;) {
      auto reader = current();
      auto done = reader->read(offset, out, stop);
      if (done || stop.stop_requested() || std::chrono::steady_clock::now() > deadline) return done;
      obs::warn("lazy.read_again", {{"reason", done.error().message}});
      if (!sys::pause(wait, stop)) return done;
      wait = std::min(wait * 2, kLastPause);
      reopen(reader, stop);
    }
  }

 private:
  std::shared_ptr<NodeCache::Reader> current() const {
    const std::lock_guard lock(mutex_);
    return reader_;
  }
  FillRequest request() const {
    const std::lock_guard lock(mutex_);
    return request_;
  }
  void reopen(const std::shared_ptr<NodeCache::Reader>& failed, const std::stop_token& stop) {
    const std::lock_guard turn(reopening_);
    if (current() != failed) return;
    auto opened = images_.open_lazily(request(), stop);
    if (!opened || (*opened)->disk_bytes() != failed->disk_bytes()) return;
    const std::lock_guard lock(mutex_);
    reader_ = std::move(*opened);
  }

  ImageTools& images_;
  std::mutex reopening_;  ///< held over open_lazily, which blocks
  mutable std::mutex mutex_;
  FillRequest request_;                        // under mutex_
  std::shared_ptr<NodeCache::Reader> reader_;  // under mutex_
};

Result<std::uint64_t> LazyDisks::open(const InstanceId& insid, const FillRequest& request,
                                      std::stop_token stop) {
  return open(insid, request, std::move(stop), true);
}

Result<std::uint64_t> LazyDisks::open(const InstanceId& insid, const FillRequest& request,
                                      std::stop_token stop, bool replace) {
  std::shared_ptr<LastingReader> old;
  {
    const std::lock_guard lock(mutex_);
    const auto found = disks_.find(insid.str());
    if (found != disks_.end()) old = found->second.reader;
  }
  if (old && old->is_of(request)) {
    old->renew(request);
    return old->disk_bytes();
  }
  // Prepared for a version that is not wanted any more: nobody reads it yet.
  if (old && !replace) return fail(ErrorCode::conflict, "another version took its place");
  if (old) drop(insid);
  auto opened = images_.open_lazily(request, stop);
  if (!opened) return fail(opened.error());
  auto reader = std::make_shared<LastingReader>(images_, request, std::move(*opened));
  const std::lock_guard lock(mutex_);
  if (stopped_) return fail(ErrorCode::cancelled, "the node stops");
  Disk& disk = disks_[insid.str()];
  if (!disk.reader) disk.reader = std::move(reader);
  return disk.reader->disk_bytes();
}

/// Our end: for the proxy, or for QEMU itself.
Result<> LazyDisks::export_disk(const InstanceId& insid) {
  const std::lock_guard lock(mutex_);
  const auto found = disks_.find(insid.str());
  if (found == disks_.end())
    return fail(ErrorCode::cancelled, "VM " + insid.str() + " was deleted meanwhile");
  Disk& disk = found->second;
  if (disk.server) return {};
  const auto socket = options_.proxy ? layout_.fill_socket(insid) : layout_.nbd_socket(insid);
  auto server = NbdExport::serve(socket, disk.reader, options_.proxy ? std::nullopt : options_.group);
  if (!server) return fail(server.error());
  disk.server = std::move(*server);
  return {};
}

Result<std::uint64_t> LazyDisks::serve(const InstanceId& insid, const FillRequest& request,
                                       std::stop_token stop) {
  return serve(insid, request, std::move(stop), true);
}

Result<std::uint64_t> LazyDisks::serve(const InstanceId& insid, const FillRequest& request,
                                       std::stop_token stop, bool replace) {
  auto bytes = open(insid, request, stop, replace);
  if (!bytes) return bytes;
  if (auto ok = sys::make_directories(layout_.instance(insid)); !ok) return fail(ok.error());
  if (auto ok = export_disk(insid); !ok) return fail(ok.error());
  // The one of before our restart has a guest, and asks us again by itself.
  if (options_.proxy && !is_nbd_proxy_up(layout_.nbd_socket(insid))) {
    auto ok = start_nbd_proxy(layout_.fill_socket(insid), layout_.nbd_socket(insid), options_.group);
    if (!ok) return fail(ok.error());
  }
  obs::info("lazy.serving", {{"insid", insid.str()}, {"imgid", request.imgid}, {"version", request.version}});
  return bytes;
}

void LazyDisks::restore(const InstanceId& insid, const FillRequest& request) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  Disk& disk = disks_[insid.str()];
  if (disk.server || disk.restorer.joinable()) return;
  disk.restorer = std::jthread([this, insid, request](std::stop_token stop) {
    auto wait = kFirstPause;
    for (;;) {
      auto served = serve(insid, request, stop, false);
      if (served || stop.stop_requested() || served.error().code == ErrorCode::conflict) return;
      obs::warn("lazy.not_restored", {{"insid", insid.str()}, {"reason", served.error().message}});
      if (!sys::pause(wait, stop)) return;
      wait = std::min(wait * 2, kLastPause);
    }
  });
}

void LazyDisks::drop(const InstanceId& insid) {
  const auto take = [&] {
    Disk taken;
    const std::lock_guard lock(mutex_);
    if (const auto found = disks_.find(insid.str()); found != disks_.end()) {
      taken = std::move(found->second);
      disks_.erase(found);
    }
    return taken;
  };
  {
    Disk gone = take();
    // Outside the lock, which it may want; until it has ended it may put the disk back.
    if (gone.restorer.joinable()) {
      gone.restorer.request_stop();
      gone.restorer.join();
      gone = take();
    }
  }
  end_nbd_proxy(layout_.nbd_socket(insid));
}

void LazyDisks::stop() {
  std::map<std::string, Disk> gone;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    gone = std::move(disks_);
    disks_.clear();
  }
  for (auto& [insid, disk] : gone) disk.restorer.request_stop();
  for (auto& [insid, disk] : gone) {
    if (disk.restorer.joinable()) disk.restorer.join();
  }
}

}  // namespace educloud::nc

#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "nc/cache/node_cache.hpp"

namespace educloud::nc {

/// One disk, read-only, over the NBD protocol on a unix socket (mode 0600, or 0660 for a group): what QEMU
/// opens as the backing of an overlay while the image still arrives. Newstyle fixed negotiation; export name
/// "disk" (or the default, ""); READ, DISC, structured replies not offered; any other command is answered
/// EINVAL/EPERM, a request beyond the end EINVAL, a read that fails EIO. Requests of a connection are worked
/// on kReaders at a time, so that one that waits for its chunk does not hold up the others. At most
/// kMaxConnections.
class NbdExport {
 public:
  static constexpr int kMaxConnections = 8;
  static constexpr int kReaders = 4;

  /// `socket`: made anew, a stale one is replaced. `group`: whose members may connect too.
  /// Errors: invalid_argument (path too long for a socket), permission_denied, internal.
  static Result<std::unique_ptr<NbdExport>> serve(std::filesystem::path socket,
                                                  std::shared_ptr<NodeCache::Reader> reader,
                                                  std::optional<unsigned> group = std::nullopt);
  /// Cuts the connections, ends their reads, removes the socket.
  ~NbdExport();
  NbdExport(const NbdExport&) = delete;
  NbdExport& operator=(const NbdExport&) = delete;
  const std::filesystem::path& socket() const;

 private:
  struct Impl;
  explicit NbdExport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::nc

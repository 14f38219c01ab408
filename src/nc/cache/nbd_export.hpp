#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "nc/cache/node_cache.hpp"

namespace educloud::nc {

/// One disk, read-only, over the NBD protocol on a unix socket (mode 0600 or the given group): what QEMU
/// opens as the backing of an overlay while the image still arrives. Newstyle fixed negotiation; export name
/// "disk"; READ, DISC, structured replies not offered; any other command is answered EINVAL/EPERM, a request
/// beyond the end EINVAL, a read that fails EIO. At most kMaxConnections.
class NbdExport {
 public:
  static constexpr int kMaxConnections = 8;
  static Result<std::unique_ptr<NbdExport>> serve(std::filesystem::path socket,
                                                  std::shared_ptr<NodeCache::Reader> reader,
                                                  unsigned socket_mode = 0600);
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

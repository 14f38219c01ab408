#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/result.hpp"

// Private to cc/disks: tgtd's management socket.
namespace educloud::cc {

/// One request to tgtd, as tgtadm would send it. Numbers as in tgt's tgtadm.h (enum tgtadm_mode, tgtadm_op).
struct TgtRequest {
  enum class Mode : std::uint32_t { target = 1, device = 2, connection = 6, account = 7 };
  enum class Op : std::uint32_t { make = 0, remove = 1, show = 2, bind = 3, unbind = 4 };

  Mode mode = Mode::target;
  Op op = Op::show;
  std::int32_t tid = -1;
  std::uint64_t sid = 0;
  std::uint64_t lun = ~std::uint64_t{0};
  std::uint32_t cid = 0;
  std::string parameters = {};  ///< "path=/x,bstype=rdwr"; holds secrets, so it is never logged
};

/// Talks to one tgtd. tgtadm is not used because it takes a CHAP secret on its command line, where every user
/// of the host can read it. Blocking; not thread-safe.
class TgtControl {
 public:
  /// `socket`: what tgtd was told by TGT_IPC_SOCKET, with ".<control port>".
  explicit TgtControl(std::filesystem::path socket) : socket_(std::move(socket)) {}

  /// Returns what tgtd shows. Only a child of this process is spoken to: a tgtd that a killed process of
  /// ours left behind is about to die. Errors: unavailable (not there, or not our child), timeout (5 s),
  /// conflict (tgtd refused; its error number is named).
  Result<std::string> call(const TgtRequest& request) const;

 private:
  const std::filesystem::path socket_;
};

}  // namespace educloud::cc

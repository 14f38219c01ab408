#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "common/http/client.hpp"
#include "common/msg/command.hpp"
#include "nc/app/image_tools.hpp"
#include "nc/app/nbd_proxy.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

/// The database disks that this node's cc keeps (cc/disks/disk_routes.hpp); the seam that unit tests and the
/// simulator replace. Every call is repeated until the cc has done it, is idempotent there, and ends soon
/// after `stop` is requested (cancelled).
/// Errors: unavailable, if the cc does not answer or gets nowhere for a while; what it says: conflict (a
/// higher epoch has the disk), permission_denied, not_found, exhausted, corrupt.
class CcDisks {
 public:
  /// Which disk, as who, and clc's leave for it.
  struct Leave {
    InstanceId instance;
    std::int64_t epoch = 0;
    std::string grant;  ///< PUT "/disks/<instance>/<epoch>"; for join, keep and leave ".../move" below it
  };
  struct Opening {
    Leave leave;
    msg::ImageVersion source;  ///< of a disk that is not there yet
    std::string source_grant;
    std::string build_imgid;  ///< of a BUILD's TMP; else empty
    std::string mode = "iscsi";
    bool writes = false;                 ///< copy: the VM starts
    std::vector<std::string> lost = {};  ///< nodes whose newer copies are not waited for
  };
  /// Mode copy: the disk is to be fetched, or is here.
  struct Copy {
    std::string name;  ///< the same for as long as this node holds it
    std::uint64_t disk_bytes = 0, data_bytes = 0;
    bool is_out = false;  ///< this node had one that may have been newer than the cc's disk
  };
  struct Opened {
    IscsiDisk disk;
    std::string secret;
    std::optional<NbdDisk> nbd = {};  ///< set: it comes over NBD instead, and the secret is its key
    std::optional<Copy> copy = {};    ///< set: nothing of the above
    std::string left = {};            ///< lost node that had a newer copy, which this disk has not
  };
  struct Held {
    Leave leave;
    std::string copy;
    std::filesystem::path file;
  };
  struct Submission {
    Leave leave;
    std::string imgid;
    int version = 0;
    std::string grant;
    std::string parent;  ///< "<imgid>/<version>"; empty: not known
    std::string cmdid;
  };

  virtual ~CcDisks() = default;
  /// Made if it is not there, and exported to this node alone.
  virtual Result<Opened> open(const Opening& request, const OnCopied& progress, std::stop_token stop) = 0;
  /// Its VM moves to this node: reached from here too, while the node that has it keeps it.
  virtual Result<Opened> join(const Leave& leave, std::stop_token stop) = 0;
  /// It is this node's alone. Waits for some seconds only.
  virtual Result<> keep(const Leave& leave, std::stop_token stop) = 0;
  /// The VM does not come. Waits for some seconds only.
  virtual Result<> leave(const Leave& leave, std::stop_token stop) = 0;
  /// Nobody reaches it any more. Waits for some seconds only.
  virtual Result<> close(const Leave& leave, std::stop_token stop) = 0;
  /// Of a closed one. Returns the receipt.
  virtual Result<std::string> submit(const Submission& request, const OnCopied& progress,
                                     std::stop_token stop) = 0;
  /// `data_bytes`: as it was opened. Errors as of DiskTransfer, and so below.
  virtual Result<> fetch(const Held& held, std::uint64_t data_bytes, const OnCopied& progress,
                         std::stop_token stop) = 0;
  /// Waits for some seconds only, if nothing moves.
  virtual Result<> give_back(const Held& held, const std::string& give, const OnCopied& progress,
                             std::stop_token stop) = 0;
  virtual Result<> remove(const Leave& leave, std::stop_token stop) = 0;
};

struct CcDiskOptions {
  http::Url cc;
  http::ClientOptions client = {};
  // Without any sign of progress.
  std::chrono::milliseconds patience{60'000};
  std::chrono::milliseconds close_patience{10'000};
};
std::unique_ptr<CcDisks> make_cc_disks(CcDiskOptions options);

}  // namespace educloud::nc
